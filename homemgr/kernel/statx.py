"""statx(2): which mount a file is on, whether it is the mount's root, and attribute flags.

Only what os.stat cannot tell. Asks for nothing else, so that a user's FUSE mount,
which refuses root's stat(2), or a dead network server cannot stand in the way.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from homemgr.kernel.syscall import (
    AT_EMPTY_PATH,
    AT_NO_AUTOMOUNT,
    AT_SYMLINK_NOFOLLOW,
    INT,
    PATH,
    POINTER,
    UINT,
    libc_call,
    zeroed,
)

#: Ask for the 64-bit id in the place of the 32-bit one.
STATX_MNT_ID_UNIQUE = 0x4000
_STATX_BTIME = 0x800
_ATTR_IMMUTABLE = 0x10
_ATTR_APPEND = 0x20
_ATTR_MOUNT_ROOT = 0x2000
#: Never ask a server for fresh values.
_DONT_SYNC = 0x4000

_SIZE = 256
#: Offsets of struct statx: mask, attributes, time of birth, device numbers and mount id.
_MASK, _ATTRIBUTES, _BIRTH, _DEVICE = 0, 8, 80, 136

_statx = libc_call("statx", INT, PATH, INT, UINT, POINTER)


class Place(NamedTuple):
    """Where a file is in the tree of mounts; ``mount_id`` as in /proc/self/mountinfo."""

    mount_id: int
    device: int
    is_mount_root: bool
    is_immutable: bool
    is_append_only: bool


def place(dirfd: int, path: str = "", *, follow: bool = False) -> Place:
    """Where ``path`` below ``dirfd`` (or ``dirfd`` itself) is, without asking its file system."""
    # The kernel itself knows all of this: with an empty mask no file system can refuse.
    attributes, major, minor, mount_id = _read(dirfd, path, mask=0, follow=follow)
    return Place(
        mount_id,
        os.makedev(major, minor),
        bool(attributes & _ATTR_MOUNT_ROOT),
        bool(attributes & _ATTR_IMMUTABLE),
        bool(attributes & _ATTR_APPEND),
    )


def unique_mount_id(dirfd: int) -> int | None:
    """The 64-bit id that statmount(2) takes and no other mount ever gets; None before 6.8."""
    raw = _call(dirfd, "", mask=STATX_MNT_ID_UNIQUE, follow=False)
    (mask,) = struct.unpack_from("=I", raw, _MASK)
    (mount_id,) = struct.unpack_from("=Q", raw, _DEVICE + 8)
    # Older kernels ignore what they do not know and leave the bit unset.
    return mount_id if mask & STATX_MNT_ID_UNIQUE else None


def birth_time_ns(dirfd: int) -> int | None:
    """When the file was made; None where its file system does not know."""
    raw = _call(dirfd, "", mask=_STATX_BTIME, follow=False)
    (mask,) = struct.unpack_from("=I", raw, _MASK)
    seconds, nanoseconds = struct.unpack_from("=qI", raw, _BIRTH)
    return int(seconds * 10**9 + nanoseconds) if mask & _STATX_BTIME else None


def _read(dirfd: int, path: str, *, mask: int, follow: bool) -> tuple[int, int, int, int]:
    raw = _call(dirfd, path, mask=mask, follow=follow)
    (attributes,) = struct.unpack_from("=Q", raw, _ATTRIBUTES)
    major, minor, mount_id = struct.unpack_from("=IIQ", raw, _DEVICE)
    return attributes, major, minor, mount_id


def _call(dirfd: int, path: str, *, mask: int, follow: bool) -> bytes:
    flags = AT_NO_AUTOMOUNT | _DONT_SYNC
    flags |= 0 if follow else AT_SYMLINK_NOFOLLOW
    flags |= 0 if path else AT_EMPTY_PATH
    area = zeroed(_SIZE)
    _statx(dirfd, os.fsencode(path), flags, mask, area)
    return area.raw
