"""Under which name each file with several was met first: a table that takes little memory.

A home may have a million such files; in a dict each of them takes 250 bytes and more, here its
name, its share of the path of the directory, and 41 to 57 bytes.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from homemgr.transfer.entry import join, split

if TYPE_CHECKING:
    import os

#: Inode, device, where the path of the directory is, length of the name that follows.
_RECORD = struct.Struct("=QQQB")
#: Length of the path of a directory, which follows.
_LENGTH = struct.Struct("=I")

_U64 = (1 << 64) - 1
#: The golden ratio: neighbours among inodes are not neighbours in the table.
_SPREAD = 0x9E3779B97F4A7C15


class FirstNames:
    """A table from inodes to paths, by open addressing; nothing is taken out of it."""

    def __init__(self) -> None:
        """Begin with no file."""
        #: Where each record is; 0 in a free slot.
        self._slots = array("Q", bytes(8 * 1024))
        self._records = bytearray(1)
        self._count = 0
        #: The directory of the file met last, and where its path is.
        self._directory: bytes | None = None
        self._directory_at = 0

    def get(self, stat: os.stat_result) -> bytes | None:
        """The first name of a file, if it has been met."""
        at = self._slots[self._find(stat.st_ino & _U64, stat.st_dev)]
        return self._path(at) if at else None

    def meet(self, stat: os.stat_result, path: bytes) -> bytes:
        """The first name of a file, which is ``path`` if it was not met before."""
        slot = self._find(stat.st_ino & _U64, stat.st_dev)
        if at := self._slots[slot]:
            return self._path(at)
        self._set(slot, stat, path)
        return path

    def put(self, stat: os.stat_result, path: bytes) -> None:
        """Have ``path`` be the first name of a file, whatever was."""
        self._set(self._find(stat.st_ino & _U64, stat.st_dev), stat, path)

    def _set(self, slot: int, stat: os.stat_result, path: bytes) -> None:
        self._count += not self._slots[slot]
        self._slots[slot] = self._append(stat.st_ino & _U64, stat.st_dev, path)
        if 2 * self._count > len(self._slots):
            self._grow()

    def __len__(self) -> int:
        """How many files were met."""
        return self._count

    def _append(self, inode: int, device: int, path: bytes) -> int:
        directory, name = split(path)
        if directory != self._directory:
            self._directory, self._directory_at = directory, len(self._records)
            self._records += _LENGTH.pack(len(directory)) + directory
        at = len(self._records)
        self._records += _RECORD.pack(inode, device, self._directory_at, len(name)) + name
        return at

    def _path(self, at: int) -> bytes:
        _, _, above, length = _RECORD.unpack_from(self._records, at)
        at += _RECORD.size
        name = bytes(self._records[at : at + length])
        (length,) = _LENGTH.unpack_from(self._records, above)
        above += _LENGTH.size
        return join(bytes(self._records[above : above + length]), name)

    def _find(self, inode: int, device: int) -> int:
        """The slot of a file, or the free one where it belongs."""
        slots, records = self._slots, self._records
        mask = len(slots) - 1
        slot = ((inode ^ device << 40) * _SPREAD >> 32) & mask
        while (at := slots[slot]) and _RECORD.unpack_from(records, at)[:2] != (inode, device):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(2 * 8 * len(old)))
        for at in old:
            if at:
                inode, device = _RECORD.unpack_from(self._records, at)[:2]
                self._slots[self._find(inode, device)] = at
