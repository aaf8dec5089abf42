"""What a walk through a home has met, told to who watches as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Totals(NamedTuple):
    """What a pass met: entries, bytes of files; and how many changes it told."""

    files: int
    size: int
    changes: int


class Tally:
    """Counts entries and the bytes of files; ``progress`` is told of both now and then."""

    __slots__ = ("_progress", "bytes", "files")

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        """Nothing yet."""
        self._progress = progress
        self.files = self.bytes = 0

    def entry(self) -> None:
        """One more name."""
        self.files += 1
        if not self.files & 0xFF:
            self.tell()

    def tell(self, of_file: int = 0) -> None:
        """Say how far it is, with ``of_file`` bytes of a large file that is not done yet."""
        self._progress(self.files, self.bytes + of_file)
