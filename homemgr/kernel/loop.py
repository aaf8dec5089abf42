"""Loop devices: a file as a block device, see loop(4).

LOOP_CONFIGURE (5.8) sets everything in one step. With autoclear the device goes
away by itself when its last user (a mount or the returned descriptor) has gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from typing import NamedTuple

from homemgr.files import Fd

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_GET_STATUS64 = 0x4C05

_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16

#: struct loop_config: fd, block_size, then loop_info64, then 64 reserved bytes.
_LOOP_CONFIG = "=II232s64x"
#: struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type,
#: encrypt_key_size, flags; file_name[64], crypt_name[64], encrypt_key[32], init[2].
_LOOP_INFO64 = "=QQQQQIIII64s64s32sQQ"

#: Where in that the size limit is, in bytes and as one number.
_LIMIT_AT, _LIMIT = 32, struct.Struct("=Q")

#: How often a device may have pages in memory that are in the way of another size, and how long
#: they are given to go (s).
_BUSY, _PAUSE_S = 100, 0.01

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


def attach_shared(backing_fd: int, *, offset: int = 0, size_limit: int = 0) -> Loop:
    """A read-only device of this part of the file: one that is there already, or a new one.

    What is mounted from one device twice is one file system and has one page cache.
    """
    found = find(backing_fd, offset=offset, size_limit=size_limit, read_only=True)
    if found is not None:
        return found
    return attach(backing_fd, read_only=True, offset=offset, size_limit=size_limit)


def find(
    backing_fd: int, *, offset: int = 0, size_limit: int | None = 0, read_only: bool = False
) -> Loop | None:
    """The device of this part of the file that is there already, opened for reading.

    With a limit of None it may end anywhere.
    """
    wanted = os.fstat(backing_fd)
    for name in _attached_names():
        device = _open_attached(f"/dev/{name}")
        if device is None:
            continue
        # Open, so the device stays what it is found to be.
        flags = _flags_if_backed(device.fileno(), wanted, offset, size_limit)
        if flags is not None and bool(flags & _LO_FLAGS_READ_ONLY) == read_only:
            return Loop(device, f"/dev/{name}")
        device.close()
    return None


def set_size_limit(device_fd: int, size_limit: int) -> None:
    """Have an attached device end elsewhere; who uses it goes on. The file has to reach so far."""
    area = bytearray(struct.calcsize(_LOOP_INFO64))
    fcntl.ioctl(device_fd, _LOOP_GET_STATUS64, area)
    _LIMIT.pack_into(area, _LIMIT_AT, size_limit)
    for attempt in range(_BUSY):
        try:
            fcntl.ioctl(device_fd, _LOOP_SET_STATUS64, area)
            return
        except OSError as error:
            # Somebody has read from it just now.
            if error.errno != errno.EAGAIN or attempt == _BUSY - 1:
                raise
        time.sleep(_PAUSE_S)


def _attached_names() -> list[str]:
    try:
        names = os.listdir("/sys/block")
    except FileNotFoundError:
        return []
    return [n for n in sorted(names) if n.startswith("loop") and _is_attached(n)]


def _is_attached(name: str) -> bool:
    # Opening one that is not would be harmless, but there may be hundreds.
    return os.path.isdir(f"/sys/block/{name}/loop")


def _open_attached(path: str) -> Fd | None:
    try:
        return Fd.open(path, os.O_RDONLY)
    except OSError:
        # Gone meanwhile, or not for us: a new one will do.
        return None


def _flags_if_backed(
    device_fd: int, wanted: os.stat_result, offset: int, size_limit: int | None
) -> int | None:
    """The flags of the device if it is that part of that file."""
    area = bytearray(struct.calcsize(_LOOP_INFO64))
    try:
        fcntl.ioctl(device_fd, _LOOP_GET_STATUS64, area)
    except OSError:
        return None
    device, inode, _, found_offset, found_limit, _, _, _, flags, *_ = struct.unpack(
        _LOOP_INFO64, area
    )
    is_same = (device, inode, found_offset) == (wanted.st_dev, wanted.st_ino, offset)
    is_same &= size_limit in (None, found_limit)
    return int(flags) if is_same else None


def _configure(path: str, mode: int, configuration: bytes) -> Loop | None:
    device = Fd.open(path, mode)
    try:
        fcntl.ioctl(device.fileno(), _LOOP_CONFIGURE, configuration)
    except OSError as error:
        device.close()
        # Somebody has taken the number since the kernel said that it is free.
        if error.errno == errno.EBUSY:
            return None
        raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", path) from error
    return Loop(device, path)
