"""Asking on the terminal: for passwords without echo, for a decision with it.

Always the controlling terminal, never standard input: what is piped in is data.
The terminal is as before afterwards, also when a signal ends the question or
stops the program at it (^Z); continued, it asks again. See termios(3).
"""

from __future__ import annotations

import errno
import os
import signal
import termios
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from homemgr.cli.complain import Reported, complain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_MAX_BYTES = 4096
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Index of the local modes in what tcgetattr(3) gives.
_LFLAG = 3

_WITHOUT_TERMINAL = "Passwords can be given in the environment: PASSWORD, NEWPASSWORD."


def ask(question: str) -> str:
    """The line typed at ``question``; raises Reported if there is nobody to ask or no answer."""
    try:
        line = _answer(question)
    # termios.error is no OSError; it is what a terminal that hung up answers with.
    except (OSError, termios.error) as error:
        complain(f"{question} There is no terminal to ask on.", _WITHOUT_TERMINAL)
        raise Reported from error
    if not line:
        complain("Nothing entered, giving up.")
        raise Reported
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        complain("What was entered is not UTF-8, which user records require.")
        raise Reported from error


def ask_openly(question: str) -> str:
    """The line typed at ``question``, seen while it is typed; it may be empty.

    Raises Reported if there is nobody to ask.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        complain(f"{question} There is no terminal to ask on.")
        raise Reported from error
    with open(terminal, "r+b", buffering=0) as file:
        file.write(f"{question} ".encode(errors="replace"))
        line = file.readline(_MAX_BYTES)
        if not line.endswith(b"\n"):
            # End of file, or more than anybody types: no answer at all.
            complain("Nothing entered, giving up.")
            raise Reported
    return line.decode(errors="replace").strip()


def confirm(question: str) -> bool | None:
    """Whether "yes" was typed in full; None if there is no terminal to ask on."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    with open(terminal, "r+b", buffering=0) as file:
        text = f"{question} (yes/no) "
        while True:
            # What was typed before the question is not the answer.
            termios.tcflush(terminal, termios.TCIFLUSH)
            file.write(text.encode(errors="replace"))
            answer = file.readline().strip().lower()
            if answer in (b"yes", b"no", b""):
                return answer == b"yes"
            text = "Please type yes or no: "


def _answer(question: str) -> bytes:
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        with _Silence(terminal, f"{question} ".encode(errors="replace")).kept():
            # In canonical mode read(2) returns at most one line, or nothing at end of file.
            return os.read(terminal, _MAX_BYTES).removesuffix(b"\n")
    finally:
        with suppress(OSError):
            os.write(terminal, b"\n")
        os.close(terminal)


class _Silence:
    """A terminal that does not echo while a question stands on it."""

    def __init__(self, terminal: int, question: bytes) -> None:
        """Remember how the terminal is."""
        self._terminal = terminal
        self._question = question
        self._before = termios.tcgetattr(terminal)
        self._silent = list(self._before)
        echo, line = termios.ECHO, termios.ICANON | termios.ISIG
        self._silent[_LFLAG] = (self._before[_LFLAG] & ~echo) | line

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Ask, silently until the end of the block whatever ends it."""
        wanted = dict.fromkeys(_ENDING, _end)
        wanted |= {signal.SIGTSTP: self._stop, signal.SIGCONT: self._continue}
        # What is ignored stays so: nohup(1), and shells without job control.
        heard = [n for n in wanted if signal.getsignal(n) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, wanted[number]) for number in heard}
        try:
            self._begin()
            yield
        finally:
            # A terminal that hung up is nobody's any more.
            with suppress(termios.error):
                _set(self._terminal, self._before)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _begin(self) -> None:
        # Flush: what was typed before the question is not the answer.
        _set(self._terminal, self._silent)
        os.write(self._terminal, self._question)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stop as we would have without us listening, with the terminal as it was."""
        _set(self._terminal, self._before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Continued; in the meantime SIGCONT was heard as well.
        signal.signal(number, self._stop)

    def _continue(self, number: int, frame: FrameType | None) -> None:
        """Ask again: others have written to the terminal, and a shell has set its modes."""
        self._begin()


def _set(terminal: int, modes: list[Any]) -> None:
    """Set the modes of the terminal and forget what was typed; waits to be in the foreground."""
    while True:
        try:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, modes)
        except termios.error as error:
            # Stopped by SIGTTOU in the background, and continued: Python tries only OSErrors again.
            if error.args[0] != errno.EINTR:
                raise
        else:
            return


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
