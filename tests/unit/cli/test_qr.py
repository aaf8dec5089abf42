"""QR codes of recovery keys: as qrencode(1) makes them, on terminals that can show them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

import pytest

from homemgr import qrencode
from homemgr.cli import qr

KEY = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"
CODE = [[True, False, True], [False, False, True], [True, True, True]]
SHOW = f"from homemgr.cli import qr; qr.show({KEY!r}, 'recovery key')"


@pytest.fixture
def library() -> None:
    if not shutil.which("qrencode"):
        if os.environ.get("CI"):
            pytest.fail("needs qrencode")
        pytest.skip("needs qrencode")


def test_two_rows_share_a_line_and_a_margin_is_around() -> None:
    lines = qr.drawn(CODE).splitlines()
    assert [line.removeprefix("\x1b[40;37;1m").removesuffix("\x1b[0m") for line in lines] == [
        "█" * 11,
        "█" * 11,
        "████▄█ ████",
        "████▄▄▄████".replace("▄", "▄"),
        "█" * 11,
        "█" * 11,
    ]


@pytest.mark.usefixtures("library")
def test_the_code_is_that_of_qrencode() -> None:
    argv = ["qrencode", "-l", "L", "-8", "-m", "0", "-t", "ASCII", "-o", "-", KEY]
    drawn = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    expected = [[sign == "#" for sign in line[::2]] for line in drawn.splitlines()]
    assert qrencode.modules(KEY) == expected


def shown(**environment: str) -> str:
    """What comes on a terminal."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [sys.executable, "-c", SHOW],
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment},
            stderr=theirs,
            check=False,
        )
        os.set_blocking(ours, False)
        text = terminal.read() or b""
        os.close(theirs)
    assert done.returncode == 0, text
    return text.decode()


@pytest.mark.usefixtures("library")
def test_it_is_shown_where_it_can_be_read() -> None:
    assert "scan the recovery key" in shown()
    assert "▀" in shown()
    assert shown(TERM="dumb") == shown(NO_COLOR="1") == shown(PYTHONIOENCODING="latin-1") == ""
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


def test_nothing_is_shown_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qrencode, "_SONAMES", ("libqrencode.so.none",))
    assert qrencode.modules(KEY) is None
