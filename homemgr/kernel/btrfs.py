"""Subvolumes of btrfs as ioctl(2) knows them, see linux/btrfs.h."""

from __future__ import annotations

import fcntl
import os
import struct

from homemgr.kernel.statfs import BTRFS_SUPER_MAGIC, file_system_type

_SNAP_DESTROY = 0x5000940F
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A

#: struct btrfs_ioctl_vol_args: a descriptor, not used here, and a name.
_VOL_ARGS = "=q4088s"
_RDONLY = 1 << 1

#: The top directory of every subvolume has this inode number, and nothing else has it.
_TOP_INODE = 256


def is_subvolume(fd: int) -> bool:
    """Whether the open directory is the top of a subvolume or snapshot."""
    # The cheap question first: few directories have that number elsewhere.
    return os.fstat(fd).st_ino == _TOP_INODE and file_system_type(fd) == BTRFS_SUPER_MAGIC


def make_writable(fd: int) -> None:
    """Let files be changed in the subvolume whose top is ``fd``; snapshots may be read-only."""
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8)))
    if flags & _RDONLY:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", flags & ~_RDONLY))


def destroy_subvolume(parent: int, name: str) -> None:
    """Delete subvolume ``name`` with its files; ENOTEMPTY if others are in it, read-only or not."""
    # Writable: Python takes constants of at most 1024 bytes.
    fcntl.ioctl(parent, _SNAP_DESTROY, bytearray(struct.pack(_VOL_ARGS, 0, os.fsencode(name))))
