"""Subvolumes of btrfs as ioctl(2) knows them, see linux/btrfs.h."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from homemgr.kernel.statfs import BTRFS_SUPER_MAGIC, file_system_type

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP = 0xD0009412
_SEND = 0x40489426
_GET_SUBVOL_INFO = 0x81F8943C

#: struct btrfs_ioctl_vol_args: a descriptor, not used here, and a name.
_VOL_ARGS = "=q4088s"
#: struct btrfs_ioctl_vol_args_v2: a descriptor, a transaction, flags, four not used here, a name.
_VOL_ARGS_V2 = "=qQQ32x4040s"
#: struct btrfs_ioctl_get_subvol_rootref_args: after 255 entries of 16 bytes how many are filled.
_ROOTREF_BYTES, _ROOTREF_COUNT = 4096, 8 + 255 * 16
_RDONLY = 1 << 1

#: struct btrfs_ioctl_ino_lookup_args: number of the subvolume, of the inode, and a path.
_LOOKUP_ARGS = "=QQ4080x"
#: struct btrfs_ioctl_send_args: where to, two not used here, number of the parent, flags.
_SEND_ARGS = "=qQQQQ32x"
_NO_FILE_DATA = 1

#: struct btrfs_ioctl_get_subvol_info_args: after 296 bytes the id of the subvolume, that of what it
#: is a snapshot of, another id, and the transactions that last changed and that made it.
_INFO_BYTES, _INFO = 504, struct.Struct("=296x16s16s16xQQ")

#: The top directory of every subvolume has this inode number, and nothing else has it.
_TOP_INODE = 256


def is_subvolume(fd: int) -> bool:
    """Whether the open directory is the top of a subvolume or snapshot."""
    # The cheap question first: few directories have that number elsewhere.
    return os.fstat(fd).st_ino == _TOP_INODE and file_system_type(fd) == BTRFS_SUPER_MAGIC


def make_writable(fd: int) -> bool:
    """Let files be changed in the subvolume whose top is ``fd``; gives whether they could not."""
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8)))
    was_read_only = bool(flags & _RDONLY)
    if was_read_only:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", flags & ~_RDONLY))
    return was_read_only


def make_read_only(fd: int) -> None:
    """Let nothing be changed any more in the subvolume whose top is ``fd``."""
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8)))
    fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", flags | _RDONLY))


def subvolume_id(fd: int) -> bytes:
    """What tells the subvolume of ``fd`` from all others, wherever it is moved to."""
    return _info(fd)[0]


def is_snapshot(fd: int) -> bool:
    """Whether the subvolume of ``fd`` was taken of another one, which may be gone."""
    return any(_info(fd)[1])


def create_subvolume(parent: int, name: str) -> None:
    """Make ``name`` in ``parent`` an empty subvolume; ENOTTY or EOPNOTSUPP if it is no btrfs.

    It is like a directory made with mode 0777: the umask and the file system ids count.
    """
    fcntl.ioctl(parent, _SUBVOL_CREATE, bytearray(struct.pack(_VOL_ARGS, 0, os.fsencode(name))))


def create_snapshot(source: int, parent: int, name: str, *, is_writable: bool = False) -> None:
    """Make ``name`` in ``parent`` a copy of the subvolume ``source`` at this moment.

    EXDEV on another file system. Subvolumes within it are empty directories in the copy.
    """
    flags = 0 if is_writable else _RDONLY
    arguments = struct.pack(_VOL_ARGS_V2, source, 0, flags, os.fsencode(name))
    fcntl.ioctl(parent, _SNAP_CREATE_V2, bytearray(arguments))


def has_subvolumes(fd: int) -> bool:
    """Whether there are other subvolumes or snapshots within the subvolume of ``fd``."""
    answer = bytearray(_ROOTREF_BYTES)
    try:
        fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, answer)
    except OSError as error:
        # More of them than fit into one answer.
        if error.errno != errno.EOVERFLOW:
            raise
        return True
    return answer[_ROOTREF_COUNT] > 0


def is_unchanged_since(subvolume: int, snapshot: int) -> bool:
    """Whether ``snapshot`` was taken of ``subvolume``, and nothing was changed in that since.

    Times of access count as well; what is in memory only does not. The snapshot is taken at the
    end of a transaction: a later change is in a later one.
    """
    this, _, changed, _ = _info(subvolume)
    _, origin, _, taken = _info(snapshot)
    return bool(this == origin and changed <= taken)


def _info(fd: int) -> tuple[bytes, bytes, int, int]:
    answer = bytearray(_INFO_BYTES)
    fcntl.ioctl(fd, _GET_SUBVOL_INFO, answer)
    this, origin, changed, made = _INFO.unpack_from(answer)
    return this, origin, changed, made


def send_changes(base: int, snapshot: int, out: int) -> None:
    """Write to ``out`` what makes the read-only snapshot ``base`` the other, without content.

    Blocks as ``out`` does. ENAMETOOLONG if a path in it is longer than PATH_MAX.
    """
    lookup = bytearray(struct.pack(_LOOKUP_ARGS, 0, _TOP_INODE))
    fcntl.ioctl(base, _INO_LOOKUP, lookup)
    (number,) = struct.unpack_from("=Q", lookup)
    fcntl.ioctl(snapshot, _SEND, struct.pack(_SEND_ARGS, out, 0, 0, number, _NO_FILE_DATA))


def destroy_subvolume(parent: int, name: str) -> None:
    """Delete subvolume ``name`` with its files; ENOTEMPTY if others are in it, read-only or not."""
    # Writable: Python takes constants of at most 1024 bytes.
    fcntl.ioctl(parent, _SNAP_DESTROY, bytearray(struct.pack(_VOL_ARGS, 0, os.fsencode(name))))
