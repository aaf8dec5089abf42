"""statfs(2): what kind of file system an open file is on."""

from __future__ import annotations

import struct

from homemgr.kernel.syscall import INT, POINTER, libc_call, zeroed

#: Kinds that are stacked on another file system, see statfs(2).
OVERLAYFS_SUPER_MAGIC = 0x794C7630
ECRYPTFS_SUPER_MAGIC = 0xF15F
EROFS_SUPER_MAGIC = 0xE0F5E1E2

BTRFS_SUPER_MAGIC = 0x9123683E
MSDOS_SUPER_MAGIC = 0x4D44
EXFAT_SUPER_MAGIC = 0x2011BAB0

#: More than struct statfs has anywhere; its type comes first.
_SIZE = 256

_fstatfs = libc_call("fstatfs", INT, POINTER)


def file_system_type(fd: int) -> int:
    """The magic number of the file system; asks it, so never for a user's own mounts."""
    area = zeroed(_SIZE)
    _fstatfs(fd, area)
    (kind,) = struct.unpack_from("@l", area.raw)
    return int(kind) & 0xFFFFFFFF
