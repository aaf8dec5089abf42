"""The flags of chattr(1): FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, see ioctl_iflags(2)."""

from __future__ import annotations

import errno
import fcntl
import struct

#: Numbers of the calls; they say long, and the kernel takes an int.
_GET, _SET = 0x80086601, 0x40086602

_FLAGS = struct.Struct("=I4x")
_ROOM = bytes(_FLAGS.size)

#: What file systems and kinds of files without flags answer.
_NONE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)


def get_flags(fd: int) -> int:
    """The flags of an open file or directory; 0 where there are none."""
    try:
        (bits,) = _FLAGS.unpack(fcntl.ioctl(fd, _GET, _ROOM))
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return 0
    return int(bits)


def set_flags(fd: int, flags: int) -> None:
    """Have exactly these flags: take those that stay as they are from `get_flags`."""
    fcntl.ioctl(fd, _SET, _FLAGS.pack(flags))
