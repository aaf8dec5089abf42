"""Storage for a file before it is written, fallocate(2), and back from a file system, FITRIM."""

from __future__ import annotations

import fcntl
import struct

from homemgr.kernel.syscall import INT, LONG, libc_call

#: _IOWR('X', 121, struct fstrim_range): start, length, smallest range; linux/fs.h.
_FITRIM = 0xC0185879
_FSTRIM_RANGE = "=QQQ"
#: A length that goes to the end, wherever it begins.
EVERYTHING = (1 << 64) - 1

_fallocate = libc_call("fallocate", INT, INT, LONG, LONG)


def allocate(fd: int, offset: int, length: int) -> None:
    """Reserve storage for a range, or ENOSPC; EOPNOTSUPP where that is impossible.

    posix_fallocate(3) would write all of it then, however long that takes.
    """
    _fallocate(fd, 0, offset, length)


def trim(fd: int, start: int = 0, length: int = EVERYTHING) -> int:
    """Tell the device what the file system of ``fd`` does not use; how many bytes it was told.

    Only of a range, as the file system counts it. Ends early with a signal that kills. EOPNOTSUPP
    if the device wants to know nothing.
    """
    area = bytearray(struct.pack(_FSTRIM_RANGE, start, length, 0))
    fcntl.ioctl(fd, _FITRIM, area)
    told: int = struct.unpack(_FSTRIM_RANGE, area)[1]
    return told
