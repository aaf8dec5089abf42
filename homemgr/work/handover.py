"""The frames of a pass, taken by an arrival in the same process: a transfer without a stream.

Who reads goes on as root, who writes is nobody in a thread of its own; frames are handed over
many at a time, and no more are under way than fit into some megabytes.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.storage.ledger import Ledger
from homemgr.storage.writer import TreeWriter
from homemgr.transfer.frames import Data, File
from homemgr.work.arrival import Arrival
from homemgr.work.contents import Shared

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.transfer.frames import Frame
    from homemgr.transfer.policy import Policy

#: Frames and bytes that are handed over at once, and how many such batches may wait.
_FRAMES, _BYTES, _BATCHES = 256, 1 << 20, 4
#: Files of one batch that are open.
_OPEN = 16

#: How often a side that waits for the other looks whether that is still there (s).
_LOOK_S = 0.2


class Handover:
    """Writes what it is given below a directory; leaving the block ends that in any case."""

    def __init__(self, top: Fd, ledger: str, rules: Policy, ledger_bytes: int) -> None:
        """Borrow ``top``; what was written is noted in ``ledger``, a file of that size at most."""
        self._top = top
        self._ledger = ledger
        self._ledger_bytes = ledger_bytes
        self._rules = rules
        self._queue: queue.Queue[list[Frame | Shared]] = queue.Queue(_BATCHES)
        self._batch: list[Frame | Shared] = []
        self._batch_bytes = 0
        self._came: list[Frame | Shared] = []
        self._is_over = False
        self._failure: BaseException | None = None
        self._digest = ""
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Handover:
        """Begin to write."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Have nothing written any more."""
        self._is_over = True
        self._thread.join()
        left = [*self._batch, *self._came]
        while not self._queue.empty():
            left += self._queue.get()
        for frame in left:
            if isinstance(frame, Shared):
                frame.file.close()

    def send(self, frame: Frame | Shared) -> None:
        """Have a frame written, some time; raises what went wrong with those before it."""
        self._batch.append(frame)
        if isinstance(frame, Data | File):
            self._batch_bytes += len(frame.data or b"")
        elif isinstance(frame, Shared):
            self._batch_bytes += _BYTES // _OPEN
        if len(self._batch) >= _FRAMES or self._batch_bytes >= _BYTES:
            self._hand_over()

    def finish(self) -> str:
        """Have all of it written; gives the digest (hex) of what is there then."""
        self._hand_over()
        # An empty batch is the end.
        self._hand_over()
        self._thread.join()
        self._raise()
        return self._digest

    def _hand_over(self) -> None:
        while True:
            self._raise()
            try:
                # In short waits: if the other thread fails, nobody takes anything out any more.
                self._queue.put(self._batch, timeout=_LOOK_S)
            except queue.Full:
                continue
            self._batch, self._batch_bytes = [], 0
            return

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- in the other thread ------------------------------------------------------------------

    def _write(self) -> None:
        try:
            with (
                suppress(_OverError),
                Ledger(self._ledger) as ledger,
                TreeWriter(self._top) as writer,
            ):
                ledger.hold(self._ledger_bytes)
                arrival = Arrival(writer, ledger, self._rules, self._next, _nothing)
                while self._has_more():
                    arrival.take(self._next())
                arrival.require_complete()
                self._digest = ledger.digest().hex()
        except BaseException as error:  # noqa: BLE001 -- it is raised again by who hands over
            self._failure = error

    def _next(self) -> Frame | Shared:
        if not self._has_more():
            raise EOFError
        return self._came.pop()

    def _has_more(self) -> bool:
        """Wait for the next frame; False if there is none."""
        while not self._came:
            try:
                # In short waits: who hands over may be gone, and then nothing comes any more.
                batch = self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                if self._is_over:
                    raise _OverError from None
                continue
            if not batch:
                return False
            self._came = batch[::-1]
        return True


class _OverError(Exception):
    """Nobody wants it any more."""


def _nothing(_files: int, _size: int) -> None:
    """Progress is told by who reads."""
