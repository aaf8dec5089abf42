"""Asking on the terminal without echo.

Always the controlling terminal, never standard input: what is piped in is data.
The terminal is as before afterwards, also when a signal ends the question.
See termios(3).
"""

from __future__ import annotations

import os
import signal
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.cli.complain import Reported, complain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_MAX_BYTES = 4096
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def ask(question: str) -> str:
    """The line typed at ``question``; raises Reported if there is nobody to ask or no answer."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        complain(f"{question} There is no terminal to ask on.", _WITHOUT_TERMINAL)
        raise Reported from error
    try:
        with _silent(terminal):
            os.write(terminal, f"{question} ".encode())
            line = _read_line(terminal)
    finally:
        os.write(terminal, b"\n")
        os.close(terminal)
    if not line:
        complain("Nothing entered, giving up.")
        raise Reported
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        complain("What was entered is not UTF-8, which user records require.")
        raise Reported from error


_WITHOUT_TERMINAL = "Passwords can be given in the environment: PASSWORD, NEWPASSWORD."


def _read_line(terminal: int) -> bytes:
    # In canonical mode read(2) returns at most one line, or nothing at end of file.
    line = os.read(terminal, _MAX_BYTES)
    return line.removesuffix(b"\n")


@contextmanager
def _silent(terminal: int) -> Iterator[None]:
    """Echo off, in canonical mode, until the end of the block whatever ends it."""
    before = termios.tcgetattr(terminal)
    silent = list(before)
    silent[3] = (silent[3] & ~termios.ECHO) | termios.ICANON | termios.ISIG
    handlers = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        # Flush: what was typed before the question is not the answer.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
