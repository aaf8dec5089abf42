"""Waiting for a job of the service: its progress on the terminal, ^C, its end.

The first ^C calls the job off, and we wait until it has ended; with the second one we
leave, which calls it off as well. See `homemgr.cli.home1.Job1`.
"""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager

from homemgr.cli import bar
from homemgr.cli.complain import complain
from homemgr.cli.home1 import BusError, Job1
from homemgr.errors import DBUS, Cancelled, TransferInterrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from homemgr.cli.home1 import Homemgr1
    from homemgr.cli.progress import ProgressLine

#: End the program in order: files are tidied up, and leaving the bus calls the job off.
_ENDING = (signal.SIGTERM, signal.SIGHUP)

Answer = dict[str, object]

#: What the bus answers in the place of a service that ended.
_GONE = frozenset(
    DBUS + name
    for name in ("NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown", "UnknownObject")
)


def nothing() -> None:
    """Be idle."""


class Job:
    """One job that was begun for us."""

    def __init__(self, service: Homemgr1, path: str, line: ProgressLine) -> None:
        """Wait for the job at ``path``, and show in ``line`` how far it is."""
        self._job = Job1(service, path)
        self._line = line
        self._progress: Answer = {}
        self._calls_off = 0
        self._is_told = False

    @property
    def has_progress(self) -> bool:
        """Whether it has come so far that there is something to tell."""
        return bool(self._progress)

    def wait(self, also: Callable[[], None] = nothing) -> Answer:
        """The result; ``also`` is called every now and then meanwhile.

        Raises BusError as the job failed, TransferInterrupted if the service ended in the
        middle of it, KeyboardInterrupt after ^C, once the job has ended.
        """

        def idle() -> None:
            also()
            self._show()

        with self._interrupts():
            try:
                self._job.listen("Progress", self._hear)
                (text,) = self._job.wait(idle).body
            except BusError as error:
                also()
                self._line.clear()
                raise self._failure(error) from error
        also()
        self._line.clear()
        answer: Answer = json.loads(str(text) or "{}")
        return answer

    def _failure(self, error: BusError) -> BaseException:
        if self._calls_off:
            complain(Cancelled().message, "Run the same command again to have it done.")
            return KeyboardInterrupt()
        if error.name in _GONE:
            return TransferInterrupted("The service ended in the middle of it.")
        return error

    def _hear(self, told: list[object]) -> None:
        """Take what the signal says."""
        (text,) = told
        progress = json.loads(str(text))
        if isinstance(progress, dict):
            self._progress = progress
        self._show()

    def _show(self) -> None:
        if self._calls_off and not self._is_told:
            self._is_told = True
            self._job.cancel()
        if self._calls_off:
            self._line.show("Ending it ...")
        elif self._progress:
            self._line.show(bar.line(self._progress, self._line.room))

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Hear ^C until the end of the block."""

        def hear(number: int, frame: FrameType | None) -> None:
            self._calls_off += 1
            if self._calls_off > 1:
                raise KeyboardInterrupt

        previous = {signal.SIGINT: signal.signal(signal.SIGINT, hear)}
        for number in _ENDING:
            # What is ignored stays so: nohup(1).
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _end)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
