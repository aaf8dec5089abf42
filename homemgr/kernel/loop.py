"""Loop devices: a file as a block device, see loop(4).

LOOP_CONFIGURE (5.8) sets everything in one step. With autoclear the device goes
away by itself when its last user (a mount or the returned descriptor) has gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

from homemgr.files import Fd

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A

_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16

#: struct loop_config: fd, block_size, then loop_info64, then 64 reserved bytes.
_LOOP_CONFIG = "=II232s64x"
#: struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type,
#: encrypt_key_size, flags; file_name[64], crypt_name[64], encrypt_key[32], init[2].
_LOOP_INFO64 = "=QQQQQIIII64s64s32sQQ"

#: How often somebody else may take the number we were told is free.
_RACES = 32


class Loop(NamedTuple):
    """An attached loop device; closing ``device`` before a mount uses it detaches it."""

    device: Fd
    path: str


def attach(
    backing_fd: int,
    *,
    read_only: bool = False,
    direct_io: bool = False,
    offset: int = 0,
    size_limit: int = 0,
    block_size: int = 0,
) -> Loop:
    """Make the open file ``backing_fd`` a block device that detaches itself after use."""
    flags = _LO_FLAGS_AUTOCLEAR
    flags |= _LO_FLAGS_READ_ONLY if read_only else 0
    flags |= _LO_FLAGS_DIRECT_IO if direct_io else 0
    information = struct.pack(
        _LOOP_INFO64, 0, 0, 0, offset, size_limit, 0, 0, 0, flags, b"", b"", b"", 0, 0
    )
    configuration = struct.pack(_LOOP_CONFIG, backing_fd, block_size, information)
    mode = os.O_RDONLY if read_only else os.O_RDWR
    with Fd.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC) as control:
        for _ in range(_RACES):
            number = fcntl.ioctl(control.fileno(), _LOOP_CTL_GET_FREE)
            found = _configure(f"/dev/loop{number}", mode, configuration)
            if found is not None:
                return found
    raise OSError(errno.EBUSY, "LOOP_CONFIGURE: every free device was taken by others")


def _configure(path: str, mode: int, configuration: bytes) -> Loop | None:
    device = Fd.open(path, mode)
    try:
        fcntl.ioctl(device.fileno(), _LOOP_CONFIGURE, configuration)
    except OSError as error:
        device.close()
        if error.errno == errno.EBUSY:
            return None
        raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", path) from error
    return Loop(device, path)
