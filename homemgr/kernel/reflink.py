"""Share content between files, ioctl_ficlone(2), and take it away again, fallocate(2)."""

from __future__ import annotations

import fcntl

from homemgr.kernel.syscall import INT, LONG, libc_call

#: _IOW(0x94, 9, int), linux/fs.h.
_FICLONE = 0x40049409

_PUNCH_HOLE = 0x02
_KEEP_SIZE = 0x01

_fallocate = libc_call("fallocate", INT, INT, LONG, LONG)


def clone(source: int, target: int) -> None:
    """Make ``target`` share all of ``source``; EOPNOTSUPP or EXDEV where that is impossible."""
    fcntl.ioctl(target, _FICLONE, source)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Take the storage of a range away; it reads as zeros. The size stays."""
    # The first flag is taken only together with the second, see fallocate(2).
    _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)
