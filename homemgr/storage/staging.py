"""Trees that are not yet, or no longer, a home: arriving from, or moved to, another machine.

Both lie beside homes in the base directory, under names that begin with a dot, which no home
has, and that no sweep takes. Each step is one rename, durable when the function returns, and
may be repeated: a kill between two steps is repaired by taking the step again. It is taken with
the very tree that it is meant for, whatever has got its name meanwhile: see `tree_id`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeAbsent, NotSupported, PathExists
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import btrfs
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.kernel.statfs import EXFAT_SUPER_MAGIC, MSDOS_SUPER_MAGIC, file_system_type
from homemgr.kernel.statx import birth_time_ns
from homemgr.storage import subvolume
from homemgr.storage.directory import make_directory
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.paths import location
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where a file has another inode number each time it is mounted: none is stored.
_NUMBERED_ANEW = {MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC}
#: FAT stores local time in units of 10 ms. What that is here may be something else tomorrow, by
#: quarters of an hour (Linux ``fs/fat/misc.c``); within one, few files were born together.
_QUARTER_NS = 900 * 10**9

#: How something is opened only to see what it is.
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_stage(parent: Fd, stage_name: str, make: Callable[[Fd, str], None] = make_directory) -> Fd:
    """The directory for what arrives, made empty and nobody's by ``make`` if there is none yet.

    PathExists if there is something that is no directory.
    """
    with suppress(FileExistsError), filesystem_identity(NOBODY, NOBODY):
        make(parent, stage_name)
    try:
        return openat2(parent.fileno(), stage_name, DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise PathExists(
            f"{os.path.join(location(parent.fileno()), stage_name)} is no directory, and what"
            " arrives is stored there: move it away, then run the same command again."
        ) from error


def make_subvolume_if_possible(parent: Fd, name: str) -> None:
    """Make an empty subvolume, or a directory where there are no subvolumes."""
    try:
        subvolume.make_subvolume(parent, name)
    except NotSupported:
        make_directory(parent, name)


def is_there(parent: Fd, name: str) -> bool:
    """Whether there is something called ``name``."""
    try:
        os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def tree_id(top: Fd) -> str:
    """What tells a tree from every other one, and stays when it is renamed: inode, birth.

    Of a snapshot of btrfs its id too. OSError if ``top`` was opened with O_PATH alone.
    """
    fd = top.fileno()
    # Two trees that were there at different times may have the same inode.
    number, birth_ns = os.fstat(fd).st_ino, birth_time_ns(fd) or 0
    if birth_ns and file_system_type(fd) in _NUMBERED_ANEW:
        number, birth_ns = 0, birth_ns % _QUARTER_NS
    found = f"{number}:{birth_ns}"
    if btrfs.is_subvolume(fd) and btrfs.is_snapshot(fd):
        # Its top directory has number and birth of the one that it was taken of.
        return f"{found}:{btrfs.subvolume_id(fd).hex()}"
    return found


def tree_at(parent: Fd, name: str) -> str:
    """The id of the tree, or image file, called ``name``; empty if there is none."""
    try:
        with openat2(parent.fileno(), name, _LOOK, RESOLVE_NO_SYMLINKS) as top:
            mode = os.fstat(top.fileno()).st_mode
            if stat.S_ISDIR(mode):
                with openat2(top.fileno(), ".", DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS) as tree:
                    return tree_id(tree)
            return tree_id(top) if stat.S_ISREG(mode) else ""
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return ""


def leave(parent: Fd, file_name: str, left_name: str, tree: str) -> None:
    """Make the home one that has left: kept, and no home any more."""
    _move(parent, file_name, left_name, tree)


def come_back(parent: Fd, left_name: str, file_name: str, tree: str) -> None:
    """Make what has left a home again."""
    _move(parent, left_name, file_name, tree)


def abandon(parent: Fd, name: str) -> None:
    """Delete a tree or image that arrived or left; one that is gone is no error."""
    try:
        found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        delete_tree(parent, name)
    else:
        os.unlink(name, dir_fd=parent.fileno())
    os.fsync(parent.fileno())


def _move(parent: Fd, old: str, new: str, tree: str) -> None:
    """Rename ``tree``, unless that has been done before. Raises PathExists and HomeAbsent."""
    where = location(parent.fileno())
    if is_there(parent, old):
        _require_tree(parent, old, tree)
        try:
            renameat2(parent.fileno(), old, parent.fileno(), new, RENAME_NOREPLACE)
        except FileExistsError as error:
            raise PathExists(f"{os.path.join(where, new)} exists already.") from error
    # Renamed already by one who was killed; only the flush below may be missing.
    elif is_there(parent, new):
        _require_tree(parent, new, tree)
    else:
        raise HomeAbsent(f"There is neither {old} nor {new} in {where}.")
    os.fsync(parent.fileno())


def _require_tree(parent: Fd, name: str, tree: str) -> None:
    if tree_at(parent, name) != tree:
        raise PathExists(
            f"{os.path.join(location(parent.fileno()), name)} is another one than the home area"
            " that has moved; nothing was done to it."
        )


def free_bytes(fd: Fd) -> int:
    """Bytes that can still be stored on the file system of ``fd``."""
    found = os.fstatvfs(fd.fileno())
    return found.f_bavail * found.f_frsize


def free_entries(fd: Fd) -> int | None:
    """Names that can still be made on the file system of ``fd``; None if it sets no number."""
    found = os.fstatvfs(fd.fileno())
    return found.f_favail if found.f_files else None
