"""Images that are mounted for somebody already, for the next one who gets the same.

A file system that is mounted straight from its file has a page cache of its own each
time that is done; clones of one mount are one file system and share it. Detached mounts
can be cloned from Linux 6.15 on; before, everybody has a cache of his own.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.kernel.mounts import OPEN_TREE_CLONE, open_tree
from homemgr.kernel.syscall import AT_EMPTY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from homemgr.files import Fd

#: Mounts that are kept at a time.
LIMIT = 32


class Shelf:
    """The mounts that are there, and a way to leave one for others.

    Borrows the mounts; they show ids as they are stored, and must stay so.
    """

    def __init__(
        self,
        mounts: Mapping[str, Fd] | None = None,
        leave: Callable[[str, Fd], None] | None = None,
    ) -> None:
        """Without ``leave`` every image is mounted anew."""
        self._mounts = mounts or {}
        self._leave = leave

    def mount(self, image: Fd, make: Callable[[], Fd]) -> Fd:
        """A detached mount of the open ``image``: a clone, or the one that ``make`` makes."""
        name = name_of(image)
        with suppress(KeyError, OSError):
            return _clone(self._mounts[name])
        new = make()
        if self._leave is None:
            return new
        with ExitStack() as unless_cloned:
            unless_cloned.callback(new.close)
            try:
                clone = _clone(new)
            except OSError:
                unless_cloned.pop_all()
                return new
            self._leave(name, new)
            return clone


def name_of(image: Fd) -> str:
    """Which file an image is, and in which state."""
    found = os.fstat(image.fileno())
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "-".join(f"{number:x}" for number in state)


def _clone(mount: Fd) -> Fd:
    return open_tree(mount.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
