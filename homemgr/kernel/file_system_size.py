"""Other sizes for file systems that are mounted, by ioctl(2) on a directory in them.

ext4 and xfs grow only; btrfs does both. All of them see to it themselves that a power cut in
the middle loses nothing. See fs/ext4/ext4.h, xfs_fs.h and linux/btrfs.h of the kernel.
"""

from __future__ import annotations

import fcntl
import os
import struct

_EXT4_RESIZE = 0x40086610
_XFS_GEOMETRY_V1 = 0x80705864
_XFS_GROW_DATA = 0x4010586E
_BTRFS_RESIZE = 0x50009403

#: struct xfs_fsop_geom_v1: size of blocks first, the share of inodes (%) as the eighth number.
_XFS_GEOMETRY = struct.Struct("=8I")
_XFS_GEOMETRY_BYTES = 112
#: struct xfs_growfs_data: blocks, share of inodes.
_XFS_GROWTH = "=QI4x"
#: struct btrfs_ioctl_vol_args: a descriptor, not used here, and which device gets what size.
_BTRFS_ARGS = "=q4088s"


def grow_ext4(fd: int, size: int) -> None:
    """Have it take ``size`` bytes of its device."""
    blocks = size // os.fstatvfs(fd).f_bsize
    fcntl.ioctl(fd, _EXT4_RESIZE, struct.pack("=Q", blocks))


def grow_xfs(fd: int, size: int) -> None:
    """Have it take ``size`` bytes of its device."""
    geometry = fcntl.ioctl(fd, _XFS_GEOMETRY_V1, bytes(_XFS_GEOMETRY_BYTES))
    block, *_, inode_share = _XFS_GEOMETRY.unpack_from(geometry)
    fcntl.ioctl(fd, _XFS_GROW_DATA, struct.pack(_XFS_GROWTH, size // block, inode_share))


def resize_btrfs(fd: int, size: int) -> None:
    """Have it take ``size`` bytes of its one device; ENOSPC if its content does not fit."""
    arguments = struct.pack(_BTRFS_ARGS, 0, f"1:{size}".encode())
    # Writable: Python takes constants of at most 1024 bytes.
    fcntl.ioctl(fd, _BTRFS_RESIZE, bytearray(arguments))
