"""A part of a home: the names that have to be looked at, everything else being known already.

A `Selection` is a directory: its names, and of each what is selected below it. `ALL` is
everything below. What is selected may be a directory, a file or nothing any more.
"""

from __future__ import annotations

from typing import Final

from homemgr.errors import StreamError
from homemgr.transfer.entry import check_path

Selection = dict[bytes, "Selection | None"]

#: In place of a selection: all there is.
ALL: Final = None

#: Beyond so many names it is quicker to look at everything.
MOST = 100_000


class Selecting:
    """Builds one, path by path."""

    def __init__(self) -> None:
        """Begin with nothing but the top itself."""
        self.selection: Selection = {}
        self._count = 0

    def name(self, path: bytes) -> None:
        """Select ``path``, itself only; `StreamError` if it is none, or one too many."""
        self._reach(path)

    def tree(self, path: bytes) -> None:
        """Select ``path`` and all below it; `StreamError` like `name`."""
        found = self._reach(path)
        if found is not None:
            directory, last = found
            directory[last] = ALL

    def _reach(self, path: bytes) -> tuple[Selection, bytes] | None:
        """Select ``path``; gives where it is now, None for the top and where all is selected."""
        if not path:
            return None
        check_path(path)
        here, last = self.selection, b""
        names = path.split(b"/")
        for number, last in enumerate(names):
            if last not in here:
                self._count += 1
                if self._count > MOST:
                    raise StreamError(f"More than {MOST} names have changed.")
            below = here.setdefault(last, {})
            if below is ALL:
                return None
            if number + 1 < len(names):
                here = below
        return here, last
