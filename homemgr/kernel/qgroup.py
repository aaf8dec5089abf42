"""Quota groups of btrfs: what a subvolume takes, and how much it may; see linux/btrfs.h.

Every subvolume has a group of its own, whose number is that of the subvolume.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import NamedTuple

_QUOTA_CTL = 0xC0109428
_QGROUP_LIMIT = 0x8030942B
_TREE_SEARCH = 0xD0009411
_INO_LOOKUP = 0xD0009412

_ENABLE = 1
#: struct btrfs_ioctl_qgroup_limit_args: a group, 0 for that of the descriptor, what is limited,
#: most bytes, and three numbers not used here.
_LIMIT_ARGS = "=6Q"
_LIMIT_REFERENCED = 1

#: struct btrfs_ioctl_search_key: tree; least and most of objects, offsets and transactions; least
#: and most of types; how many; 36 bytes not used. Results come behind it.
_KEY = "=7Q3I36x"
_AREA_BYTES = 4096
#: struct btrfs_ioctl_search_header: transaction, object, offset, type, length.
_HEADER = struct.Struct("=QQQII")
_QUOTA_TREE = 8
_INFO, _LIMIT = 242, 244
_MOST = (1 << 64) - 1

#: struct btrfs_ioctl_ino_lookup_args: number of the subvolume, of the inode, and a path.
_LOOKUP_ARGS = "=QQ4080x"
_TOP_INODE = 256


class Usage(NamedTuple):
    """What a subvolume refers to, and how much it may; bytes, no limit is 0."""

    limit: int
    usage: int


def enable(fd: int) -> None:
    """Have the file system count; what is in it already is counted in the background."""
    fcntl.ioctl(fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", _ENABLE, 0)))


def set_limit(subvolume: int, size: int) -> None:
    """Let the subvolume whose top is open refer to ``size`` bytes at most."""
    arguments = struct.pack(_LIMIT_ARGS, 0, _LIMIT_REFERENCED, size, 0, 0, 0)
    fcntl.ioctl(subvolume, _QGROUP_LIMIT, bytearray(arguments))


def usage(subvolume: int) -> Usage | None:
    """What it takes and may take; None if the file system does not count."""
    lookup = bytearray(struct.pack(_LOOKUP_ARGS, 0, _TOP_INODE))
    fcntl.ioctl(subvolume, _INO_LOOKUP, lookup)
    (number,) = struct.unpack_from("=Q", lookup)
    items = _items(subvolume, number)
    if _INFO not in items:
        return None
    (_, referenced) = struct.unpack_from("<QQ", items[_INFO])
    flags, most = struct.unpack_from("<QQ", items.get(_LIMIT, bytes(16)))
    return Usage(most if flags & _LIMIT_REFERENCED else 0, referenced)


def _items(fd: int, number: int) -> dict[int, bytes]:
    """What the quota tree says of one group, by type."""
    key = struct.pack(_KEY, _QUOTA_TREE, 0, 0, number, number, 0, _MOST, _INFO, _LIMIT, 16)
    area = bytearray(key.ljust(_AREA_BYTES, b"\0"))
    try:
        fcntl.ioctl(fd, _TREE_SEARCH, area)
    except OSError as error:
        # There is no such tree.
        if error.errno != errno.ENOENT:
            raise
        return {}
    (count,) = struct.unpack_from("=I", area, 64)
    found, offset = {}, struct.calcsize(_KEY)
    for _ in range(count):
        _, _, group, kind, length = _HEADER.unpack_from(area, offset)
        offset += _HEADER.size
        if group == number:
            found[kind] = bytes(area[offset : offset + length])
        offset += length
    return found
