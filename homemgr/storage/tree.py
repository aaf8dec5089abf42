"""Delete a tree that may fight back: by descriptor, never through a link or a mount.

Subvolumes and snapshots of btrfs are deleted with it, read-only ones too.
Depth costs no stack and no descriptors; entries that appear meanwhile are deleted
too. The way back up is `..`, believed only if it is the directory we came from.
"""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from typing import NamedTuple

from homemgr.errors import HomeBusy, HostileHome
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.btrfs import destroy_subvolume, is_subvolume, make_writable
from homemgr.kernel.openat2 import (
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from homemgr.kernel.statx import place
from homemgr.storage.paths import location

_RESOLVE = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

#: How often directories may be filled again before we give up.
_REFILLS = 1000

#: How many entries are looked at in one go.
_LISTED = 5_000


class _Level(NamedTuple):
    """One directory on the way down: what it is, and its directories still to be done."""

    name: str
    identity: tuple[int, int]
    directories: list[str]


def delete_tree(parent: Fd, name: str) -> None:
    """Delete the directory ``name`` in ``parent`` with all that is in it."""
    # A walk with one descriptor; what lies above it is remembered by name and inode.
    current = parent.duplicate()
    try:
        levels = [_Level("", _identity(current.fileno()), [name])]
        refills = _REFILLS
        while True:
            level = levels[-1]
            if level.directories:
                below = _down(current.fileno(), level.directories[-1])
                if below is None or _is_destroyed(current.fileno(), level.directories[-1], below):
                    level.directories.pop()
                    continue
                current.close()
                current = below
                found = _clear(current.fileno())
                levels.append(_Level(level.directories[-1], _identity(current.fileno()), found))
                continue
            levels.pop()
            if not levels:
                return
            current = _up(current, levels[-1].identity)
            # Kept in the list when it was filled again meanwhile: it will be cleared anew.
            if _remove_directory(current.fileno(), level.name):
                levels[-1].directories.pop()
            elif (refills := refills - 1) < 0:
                raise HomeBusy(f"{location(current.fileno())} is being filled faster than emptied.")
    finally:
        current.close()


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _down(directory: int, name: str) -> Fd | None:
    """The directory ``name``; None if there is none any more."""
    try:
        return openat2(directory, name, DIRECTORY_FLAGS, _RESOLVE)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EXDEV:
            where = os.path.join(location(directory), name)
            raise HomeBusy(f"Something is mounted at {where}.") from error
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        # A file or link took its place since it was listed.
        _unlink(directory, name)
        return None


def _is_destroyed(parent: int, name: str, below: Fd) -> bool:
    """Delete ``below``, called ``name``, in one go if it is a subvolume without others in it."""
    if not is_subvolume(below.fileno()):
        return False
    try:
        destroy_subvolume(parent, name)
    except OSError:
        # Emptied first, like a directory; what is really in the way shows then.
        with suppress(OSError):
            make_writable(below.fileno())
        return False
    below.close()
    return True


def _up(current: Fd, expected: tuple[int, int]) -> Fd:
    with current:
        parent = openat2(current.fileno(), "..", DIRECTORY_FLAGS, _RESOLVE)
        if _identity(parent.fileno()) != expected:
            where = location(current.fileno())
            parent.close()
            raise HostileHome(f"Directory {where} was moved away while it was being deleted.")
        return parent


def _clear(directory: int) -> list[str]:
    """Unlink all that is no directory; the names of directories, perhaps not of all."""
    directories: list[str] = []
    for _ in range(_REFILLS):
        with os.scandir(directory) as entries:
            # A hostile directory has more entries than we have memory; the rest comes after.
            some = itertools.islice(entries, _LISTED)
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in some]
        # Listed first: deleting while reading a directory may skip entries.
        directories = [
            name for name, is_directory in listed if is_directory or not _unlink(directory, name)
        ]
        if directories or len(listed) < _LISTED:
            break
    return directories


def _unlink(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        # Swapped since it was listed.
        return False
    except PermissionError as error:
        raise _marked(directory, name) from error
    return True


def _remove_directory(parent: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except PermissionError as error:
        raise _marked(parent, name) from error
    except OSError as error:
        # Filled again since it was cleared.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _marked(directory: int, name: str) -> Exception:
    """What to say about an entry that even root may not delete."""
    where = os.path.join(location(directory), name)
    found, above = place(directory, name), place(directory)
    if found.is_immutable or found.is_append_only:
        return HostileHome(f"{where} is marked immutable or append-only (see chattr(1)).")
    if above.is_immutable or above.is_append_only:
        return HostileHome(f"{location(directory)} is marked immutable or append-only.")
    return PermissionError(errno.EPERM, os.strerror(errno.EPERM), where)
