"""Locks on single bytes of a file that belong to an open file: F_OFD_SETLK in fcntl(2).

Unlike the older kind they are not lost when another descriptor of the file is
closed; unlike flock(2) one file holds as many as it has positions, and none of
those need to exist.
"""

from __future__ import annotations

import fcntl
import struct

#: struct flock: type, whence (0: from the beginning), start, length, pid (must be 0).
_FLOCK = "@hhqqi0q"


def try_lock_byte(fd: int, position: int) -> bool:
    """Lock the byte at ``position`` for ourselves until ``fd`` is closed; False if it is taken."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, position, 1, 0))
    except BlockingIOError:
        return False
    return True
