"""How long a worker may say nothing before the log tells of it, and what it waits for.

A worker can hang for as long as a disk or a server of files does. Nothing but an
administrator can help then, who has to learn which process it is and in which call.
See proc_pid_stat(5), proc_pid_wchan(5).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Longer than any step of a usual job. Told again after twice the time, and so on.
SILENCE_S = 60.0

#: Process states in words; the other letters come and go too fast to be seen.
_STATES = {
    "D": "waiting for a device or a server of files",
    "R": "computing",
    "S": "sleeping",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "dead",
}


class Patience:
    """Watches one job until it is closed; calls ``lost`` each time the log was told."""

    def __init__(self, what: str, lost: Callable[[], None]) -> None:
        """Begin to wait for the worker of ``what``."""
        self._what = what
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._limit_s = SILENCE_S
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._limit_s, self._look)
        #: The worker's process; None until it has begun.
        self.pid: int | None = None
        #: What it was told to wait for by us; empty if it is at work.
        self.held_up = ""

    def heard(self) -> None:
        """The worker said something."""
        self._heard = self._loop.time()

    def close(self) -> None:
        """The job has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        silent_s = self._loop.time() - self._heard
        if silent_s >= self._limit_s:
            self._tell(silent_s)
            self._limit_s *= 2
        rest = self._heard + self._limit_s - self._loop.time()
        self._timer = self._loop.call_later(rest, self._look)

    def _tell(self, silent_s: float) -> None:
        if self.pid is None:
            doing = "no worker has begun it"
        else:
            doing = f"process {self.pid}, {self.held_up or waiting_in(self.pid)}"
        log.warning("%s: nothing heard for %.0f s (%s).", self._what, silent_s, doing)
        self._lost()


def waiting_in(pid: int) -> str:
    """What a process does: its state, and the function of the kernel in which it sleeps."""
    try:
        # The name in parentheses may hold anything, also blanks and parentheses.
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        place = Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8")
    except OSError as error:
        return f"of which nothing is known: {error.strerror}"
    words = _STATES.get(state, f"state {state}")
    return words if place in ("", "0") else f"{words} in {place}"
