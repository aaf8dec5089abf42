"""Give a new file, directory, link or fifo the metadata that its entry says, all of it.

The order matters: a change of owner clears set-id bits, an ACL changes the mode, and
everything changes times. What was inherited from the directory (a default ACL, the group)
is taken away again; labels that the machine itself gives to files stay.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from homemgr.errors import NotSupported
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.transfer import flags
from homemgr.transfer.entry import Kind

if TYPE_CHECKING:
    from homemgr.transfer.entry import Entry

#: What travels, see `transfer.policy`; all else (security.selinux) is the machine's.
_OURS = ("user.", "system.posix_acl_")

#: What file systems answer to flags and attributes they cannot store, see setxattr(2).
_NO_FLAG = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM)
_NO_ROOM = (errno.EOPNOTSUPP, errno.E2BIG, errno.ERANGE, errno.ENOSPC)


def apply(fd: int, entry: Entry) -> os.stat_result:
    """Make the open file or directory look like ``entry``; gives what stat(2) says afterwards.

    `NotSupported` if the file system cannot store its extended attributes.
    """
    found = os.fstat(fd)
    # First: chown(2) takes setuid bits and file capabilities away.
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        os.fchown(fd, entry.uid, entry.gid)
    _set_xattrs(fd, entry)
    set_entry_flags(fd, entry)
    # After the attributes: an access control list changes the bits of the group.
    os.fchmod(fd, entry.mode)
    os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
    return os.fstat(fd)


def apply_to_name(parent: int, name: bytes, entry: Entry) -> None:
    """The same for what cannot be opened: a symbolic link or fifo ``name`` in ``parent``."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if entry.kind == Kind.FIFO:
        # Ours alone, and just made: not a link.
        _set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), entry)
        os.chmod(name, entry.mode, dir_fd=parent)
    os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _set_xattrs(where: int | bytes, entry: Entry) -> None:
    there = _listed(where)
    if not (there or entry.xattrs):
        return
    wanted = {os.fsdecode(name): value for name, value in entry.xattrs if name != flags.NAME}
    for name in there:
        if name not in wanted and name.startswith(_OURS):
            os.removexattr(where, name)
    for name, value in wanted.items():
        try:
            os.setxattr(where, name, value)
        except OSError as error:
            if error.errno not in _NO_ROOM or _is_full(where):
                raise
            raise NotSupported(
                f"The extended attribute {name!r} of a file, {len(value)} bytes, cannot be stored"
                f" on the file system of the home areas: {os.strerror(error.errno)}."
            ) from error


def set_entry_flags(fd: int, entry: Entry, among: int = flags.ALL_BITS) -> None:
    """Have the flags of chattr that the entry has, of those ``among``, and no others of them.

    `NotSupported` if the file system does not store one.
    """
    before, wanted = get_flags(fd), flags.bits_of(entry) & among
    if before & among == wanted:
        return
    try:
        set_flags(fd, before & ~among | wanted)
    except OSError as error:
        if error.errno not in _NO_FLAG:
            raise
        raise NotSupported(
            "The file system of the home areas does not store flags of chattr that a file has."
        ) from error


def has_xattr(fd: int, name: str) -> bool:
    """Whether the open file or directory has this extended attribute."""
    try:
        os.getxattr(fd, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _listed(where: int | bytes) -> list[str]:
    try:
        return os.listxattr(where)
    except OSError as error:
        # A file system that has none.
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def _is_full(where: int | bytes) -> bool:
    """Whether the disk is full: then that is what is to be said."""
    return os.statvfs(where).f_bavail == 0
