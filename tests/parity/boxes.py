"""Runs the scenario in a box and fetches its outcomes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.world.box import ENVIRONMENT

if TYPE_CHECKING:
    from tests.world.box import Box

INSIDE = Path(__file__).with_name("inside")
PLACE = "/opt/parity"
PYTHON = "/opt/homemgr/bin/python"
TIMEOUT_S = 280


def outcomes(box: Box, sections: tuple[str, ...] = ()) -> dict[str, object]:
    """All that came of the scenario, step by step."""
    for source in INSIDE.glob("*.py"):
        box.write(f"{PLACE}/inside/{source.name}", source.read_text())
    done = subprocess.run(
        box.command([PYTHON, "-m", "inside", *sections]),
        env=ENVIRONMENT | {"PYTHONPATH": PLACE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found
