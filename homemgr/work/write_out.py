"""What arrives goes to the disk while more comes, so that little is left to wait for in the end."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.synchronization import syncfs

if TYPE_CHECKING:
    from types import TracebackType

#: Between two times that all is written out (s): by itself the kernel waits for thirty.
_INTERVAL_S = 1.0


class WritingOut:
    """Writes a file system out again and again, in a thread of its own, until the block ends.

    It promises nothing: who wants to know that all is on disk still asks for that himself. The
    kernel tells a failed write once to each opened file that asks; here it is asked for one of
    our own, so that nobody else misses it.
    """

    def __init__(self, top: Fd) -> None:
        """Begin with the block, for the file system of ``top``."""
        self._own = Fd.open(".", DIRECTORY_FLAGS, dir_fd=top.fileno())
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with self._own:
            while not self._has_ended.wait(_INTERVAL_S):
                with suppress(OSError):
                    syncfs(self._own.fileno())

    def __enter__(self) -> WritingOut:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; what is being written out just then is not waited for, a disk may hang."""
        self._has_ended.set()
