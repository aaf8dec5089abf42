"""Which paths an archive had so far, in 16 to 32 bytes for each of them.

Kept are 62 bits of a digest of each path. Whoever makes two paths of one digest has
them refused, or gets by what the file system refuses then.
"""

from __future__ import annotations

from array import array
from enum import IntEnum
from hashlib import blake2b


class Sort(IntEnum):
    """What matters of a member to those that come later."""

    DIRECTORY = 1
    OTHER = 2


_SORT_BITS = 3


class Seen:
    """A table from paths to sorts, by open addressing."""

    def __init__(self) -> None:
        """Begin with no path."""
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def add(self, path: bytes, sort: Sort) -> bool:
        """Remember a path; False if it is known already."""
        word = _word(path)
        at = self._find(word)
        if self._slots[at]:
            return False
        self._slots[at] = word | sort
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def sort_of(self, path: bytes) -> int:
        """What was remembered of a path; 0 if nothing was."""
        return self._slots[self._find(_word(path))] & _SORT_BITS

    def _find(self, word: int) -> int:
        """The slot that holds ``word``, or the free one where it belongs."""
        slots = self._slots
        mask = len(slots) - 1
        at = (word >> 2) & mask
        while (found := slots[at]) and found & ~_SORT_BITS != word:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(2 * 8 * len(old)))
        for found in old:
            if found:
                self._slots[self._find(found & ~_SORT_BITS)] = found


def _word(path: bytes) -> int:
    return int.from_bytes(blake2b(path, digest_size=8).digest(), "big") & ~_SORT_BITS
