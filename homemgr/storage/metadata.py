"""Give a new file, directory, link or fifo the metadata that its entry says, all of it.

The order matters: a change of owner clears set-id bits, an ACL changes the mode, and
everything changes times. What was inherited from the directory (a default ACL, the group) is
taken away again.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from homemgr.transfer.entry import Kind

if TYPE_CHECKING:
    from homemgr.transfer.entry import Entry


def apply(fd: int, entry: Entry) -> os.stat_result:
    """Make the open file or directory look like ``entry``; gives what stat(2) says afterwards."""
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        os.fchown(fd, entry.uid, entry.gid)
    _set_xattrs(fd, entry)
    os.fchmod(fd, entry.mode)
    os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
    return os.fstat(fd)


def apply_to_name(parent: int, name: bytes, entry: Entry) -> None:
    """The same for what cannot be opened: a symbolic link or fifo ``name`` in ``parent``."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if entry.kind == Kind.FIFO:
        _set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), entry)
        # Ours alone, and just made: not a link.
        if stat.S_IMODE(found.st_mode) != entry.mode:
            os.chmod(name, entry.mode, dir_fd=parent)
    os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _set_xattrs(where: int | bytes, entry: Entry) -> None:
    there = os.listxattr(where)
    if not (there or entry.xattrs):
        return
    wanted = {os.fsdecode(name): value for name, value in entry.xattrs}
    for name in there:
        if name not in wanted:
            os.removexattr(where, name)
    for name, value in wanted.items():
        os.setxattr(where, name, value)
