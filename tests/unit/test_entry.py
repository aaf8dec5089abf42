"""What the service writes to the journal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging
from homemgr.entry import log_to_the_journal
log_to_the_journal()
log = logging.getLogger("test")
log.info("Home area %s is gone.", "a\\n<2>forged \\x1b[2J\\x9b2J \\udcff \\u202e gr\\u00fcn")
try:
    raise ValueError("first\\nsecond")
except ValueError:
    log.exception("Caught.")
"""


def logged(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env={"LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        check=True,
    )
    return done.stderr.decode().splitlines()


def test_no_name_can_begin_a_line_or_steer_a_terminal() -> None:
    first, *rest = logged()
    wanted = r"Home area a\n<2>forged \x1b[2J\x9b2J \udcff \u202e gr" + "ün is gone."
    assert first == wanted
    assert rest[0] == "Caught."


def test_every_line_has_its_priority() -> None:
    first, *rest = logged(JOURNAL_STREAM="1:2")
    assert first.startswith("<6>Home area")
    assert len(rest) > 3
    assert all(line.startswith("<3>") for line in rest)
