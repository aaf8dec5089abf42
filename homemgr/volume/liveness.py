"""Whether the disk below a block device is still there.

The caches of the kernel may go on to answer for it, so it is asked past them, and below what
encrypts: a device whose key was taken out of memory would never answer.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import Final

from homemgr.files import Fd

#: Larger than the sectors of any disk.
_BLOCK: Final = 1 << 16

#: What a disk that is gone says. All else may be said of one that is there.
_GONE: Final = (
    errno.EIO,
    errno.ENOENT,
    errno.ENXIO,
    errno.ENODEV,
    errno.ENOMEDIUM,
    errno.ENOLINK,
    errno.ETIMEDOUT,
)

#: Devices on devices on devices.
_DEEPEST: Final = 8


def answers(path: str) -> bool:
    """Whether all disks below the device of this node are there, as far as can be told."""
    try:
        below = [path]
        for _ in range(_DEEPEST):
            deeper = [node for device in below for node in _below(device) or [device]]
            if deeper == below:
                break
            below = deeper
        return all(_reads(node) for node in below)
    except OSError as error:
        return error.errno not in _GONE


def _below(path: str) -> list[str]:
    """What a device is made of, if it is made of others (sysfs, Documentation/ABI/testing)."""
    number = os.stat(path).st_rdev
    top = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/slaves"
    names = sorted(os.listdir(top)) if os.path.isdir(top) else []
    # What is a directory below /dev has another mark in /sys.
    return ["/dev/" + name.replace("!", "/") for name in names]


def _reads(path: str) -> bool:
    with (
        Fd.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK) as device,
        mmap.mmap(-1, _BLOCK) as area,
    ):
        if not stat.S_ISBLK(os.fstat(device.fileno()).st_mode):
            return False
        # Nothing to read is what a device without a disk says.
        return os.preadv(device.fileno(), [area], 0) > 0
