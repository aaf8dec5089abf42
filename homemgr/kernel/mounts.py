"""The mount API by descriptor: open_tree(2), mount_setattr(2), fsopen(2), move_mount(2), umount(2).

One function per call, names and argument order of the man pages, descriptors and
OSError out. Knows nothing of homes; when to mount what is decided elsewhere.
"""

from __future__ import annotations

import os
from contextlib import suppress

from homemgr.files import Fd
from homemgr.kernel.syscall import INT, PATH, POINTER, SIZE, UINT, libc_call, packed, system_call

#: open_tree(2): a copy that is attached nowhere, instead of the mount itself.
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

#: move_mount(2): source (F) or target (T) is the descriptor itself.
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
#: Below what is mounted at the target already (Linux 6.5): seen once that is taken off.
MOVE_MOUNT_BENEATH = 0x200

#: mount_setattr(2) and fsmount(2); IDMAP only on a mount that was never attached.
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000

#: Propagation, see mount_namespaces(7).
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20

#: umount2(2): out of the tree now, gone when the last user lets go.
MNT_DETACH = 2
#: umount2(2): EBUSY if it is in use; otherwise EAGAIN, and gone if asked again unused since.
MNT_EXPIRE = 4
#: umount2(2): the last component must not be a symbolic link.
UMOUNT_NOFOLLOW = 8

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1

_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6

#: The longest message of a file system context; reading gives one at a time.
_MESSAGE_SIZE = 4096

#: struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
_MOUNT_ATTR = "=QQQQ"
_MOUNT_ATTR_SIZE = 32

_open_tree = system_call("open_tree", 428, INT, PATH, UINT)
_move_mount = system_call("move_mount", 429, INT, PATH, INT, PATH, UINT)
_fsopen = system_call("fsopen", 430, PATH, UINT)
_fsconfig = system_call("fsconfig", 431, INT, UINT, PATH, POINTER, INT)
_fsmount = system_call("fsmount", 432, INT, UINT, UINT)
_mount_setattr = system_call("mount_setattr", 442, INT, PATH, UINT, POINTER, SIZE)
_umount2 = libc_call("umount2", PATH, INT)


def open_tree(dirfd: int, path: str, flags: int) -> Fd:
    """A descriptor of the mount at ``path``, or with OPEN_TREE_CLONE of a detached copy."""
    return Fd(_open_tree(dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC))


def move_mount(from_dirfd: int, from_path: str, to_dirfd: int, to_path: str, flags: int) -> None:
    """Attach a detached mount, or move one that is attached."""
    _move_mount(from_dirfd, os.fsencode(from_path), to_dirfd, os.fsencode(to_path), flags)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change attributes of a mount, or of a whole tree with AT_RECURSIVE, in one step."""
    attributes = packed(_MOUNT_ATTR, attr_set, attr_clr, propagation, userns_fd)
    _mount_setattr(dirfd, os.fsencode(path), flags, attributes, _MOUNT_ATTR_SIZE)


def fsopen(fsname: str) -> Fd:
    """Begin a new mount of file system type ``fsname``."""
    return Fd(_fsopen(os.fsencode(fsname), FSOPEN_CLOEXEC))


def fsconfig_set_string(fs_fd: int, key: str, value: str) -> None:
    """Set an option with a value; ``source`` is the device."""
    # One call for all commands: what it takes depends on the second argument.
    _fsconfig(fs_fd, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)


def fsconfig_set_flag(fs_fd: int, key: str) -> None:
    """Set an option that has no value, such as ``ro``."""
    _fsconfig(fs_fd, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0)


def fsconfig_set_fd(fs_fd: int, key: str, value_fd: int) -> None:
    """Set an option to an open file; overlayfs takes its layers this way from 6.13 on."""
    _fsconfig(fs_fd, _FSCONFIG_SET_FD, os.fsencode(key), None, value_fd)


def fs_messages(fs_fd: int) -> list[str]:
    """What the file system had to say so far, such as why it refused; each is told once."""
    messages: list[str] = []
    # ENODATA: no more of them. Whatever else goes wrong, there is nothing to tell.
    with suppress(OSError):
        while raw := os.read(fs_fd, _MESSAGE_SIZE):
            # "e overlay: text": the first letter is the severity.
            messages.append(os.fsdecode(raw).strip()[2:])
    return messages


def fsconfig_create(fs_fd: int) -> None:
    """Bring the file system up with the options set so far."""
    _fsconfig(fs_fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fs_fd: int, attr_flags: int) -> Fd:
    """The detached mount of a file system that was created."""
    return Fd(_fsmount(fs_fd, FSMOUNT_CLOEXEC, attr_flags))


def umount2(path: str, flags: int) -> None:
    """Take away the mount on top of ``path``."""
    _umount2(os.fsencode(path), flags)
