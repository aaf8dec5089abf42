"""A terminal in a box: a pty of the box's own devpts, with a program on it and a typist in front.

For programs that read a password from the terminal or want to know its name; nothing about logins.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
from typing import TYPE_CHECKING

from pexpect import EOF, TIMEOUT
from pexpect.fdpexpect import fdspawn

from .box import ENVIRONMENT, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from .box import Box

# <asm-generic/ioctls.h>
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
ANSWER_TIMEOUT_S = 30.0


class TerminalSilent(AssertionError):
    """What should have appeared on a terminal did not."""


class Terminal:
    """A program on a controlling terminal; leaving the `with` hangs up and ends the program."""

    def __init__(
        self,
        box: Box,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self._seen: list[str] = []
        # Opened through the root of the box, so that the program can find its terminal by name.
        master = os.open(box.path("/dev/pts/ptmx"), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
            slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            os.close(master)
            raise
        self._typist = fdspawn(master, encoding="utf-8", codec_errors="replace")
        self._program = subprocess.Popen(
            box.command(["setsid", "--ctty", "--wait", *argv], user=user),
            env=ENVIRONMENT | dict(env or {}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._typist.close()
        if self._program.poll() is None:
            os.killpg(self._program.pid, signal.SIGKILL)
            self._program.wait()

    def expect(self, pattern: str, timeout: float = ANSWER_TIMEOUT_S) -> str:
        """Wait until the pattern appears; returns what appeared up to its end."""
        return self._read_until(pattern, timeout)

    def send(self, line: str) -> None:
        """Type a line."""
        self._typist.send(f"{line}\n")

    def answer(self, prompt: str, line: str, timeout: float = ANSWER_TIMEOUT_S) -> None:
        """Wait for a prompt and type the answer."""
        self.expect(prompt, timeout)
        self.send(line)

    def finish(self, timeout: float = ANSWER_TIMEOUT_S) -> Result:
        """Wait for the end of the program; everything it showed is in the result's stdout."""
        self._read_until(EOF, timeout)
        code = self._program.wait(timeout)
        return Result(self.argv, "".join(self._seen).replace("\r\n", "\n"), "", code)

    def _read_until(self, pattern: object, timeout: float) -> str:
        try:
            self._typist.expect(pattern, timeout=timeout)
        except (EOF, TIMEOUT) as error:
            shown = "".join(self._seen) + str(self._typist.before)
            raise TerminalSilent(f"no {pattern!r} from {self.argv}, only: {shown!r}") from error
        after = self._typist.after if isinstance(self._typist.after, str) else ""
        text = str(self._typist.before) + after
        self._seen.append(text)
        return text
