"""Walk through a tree that may change or fight back, with one descriptor at a time.

Never leads through a link or onto another mount, and depth costs neither stack nor
descriptors. The way back up is `..`, believed only if it is where we came from.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HostileHome
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HERE = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV

#: How a path inside a home is resolved: no link, no mount, not out of it.
RESOLVE_GUARDED = RESOLVE_BENEATH | _HERE

#: Not a directory any more, or not for us: not to be walked into.
_NO_WAY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES)

_NOT_REMOVED = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY)


class Entry(NamedTuple):
    """One name in a directory, as listing it tells without another call."""

    name: str
    is_directory: bool
    #: Neither directory nor file nor link: a device, a fifo, a socket.
    is_special: bool


class _Level(NamedTuple):
    name: str
    identity: tuple[int, int]
    pending: list[str]


def list_entries(directory: int) -> list[Entry]:
    """Everything in ``directory`` now."""
    with os.scandir(directory) as entries:
        return [_entry(entry) for entry in entries]


def _entry(found: os.DirEntry[str]) -> Entry:
    is_directory = found.is_dir(follow_symlinks=False)
    is_common = is_directory or found.is_symlink() or found.is_file(follow_symlinks=False)
    return Entry(found.name, is_directory, not is_common)


def visit(
    top: Fd,
    enter: Callable[[Sequence[str], int], list[str]],
    leave: Callable[[int, str], None] | None = None,
) -> None:
    """Call ``enter`` for ``top`` and every directory below it, and ``leave`` after each but it.

    ``enter`` is given the path in components and a descriptor, and answers which
    directories to go into; ``leave`` the directory above and the name that is done.
    """
    path: list[str] = []
    current = Fd.open(".", DIRECTORY_FLAGS, dir_fd=top.fileno())
    try:
        levels = [_Level("", _identity(current.fileno()), enter(path, current.fileno()))]
        while True:
            if levels[-1].pending:
                name = levels[-1].pending.pop()
                below = _down(current.fileno(), name)
                if below is None:
                    continue
                current.close()
                current = below
                path.append(name)
                found = enter(path, current.fileno())
                levels.append(_Level(name, _identity(current.fileno()), found))
                continue
            done = levels.pop()
            if not levels:
                return
            current = _up(current, levels[-1].identity)
            path.pop()
            if leave is not None:
                leave(current.fileno(), done.name)
    finally:
        current.close()


def delete(parent: Fd, name: str) -> None:
    """Delete ``name`` with all that is in it; what appears meanwhile may stay."""

    def clear(_path: Sequence[str], directory: int) -> list[str]:
        below: list[str] = []
        for entry in list_entries(directory):
            if entry.is_directory:
                below.append(entry.name)
                continue
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(entry.name, dir_fd=directory)
        return below

    tree = _down(parent.fileno(), name)
    if tree is None:
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=parent.fileno())
        return
    with tree:
        visit(tree, clear, remove_empty)
    remove_empty(parent.fileno(), name)


def remove_empty(parent: int, name: str) -> None:
    """Remove the directory ``name`` if it is one and empty; all else stays as it is."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in _NOT_REMOVED:
            raise


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _down(directory: int, name: str) -> Fd | None:
    try:
        return openat2(directory, name, DIRECTORY_FLAGS, RESOLVE_GUARDED)
    except OSError as error:
        if error.errno in _NO_WAY:
            return None
        raise


def _up(current: Fd, expected: tuple[int, int]) -> Fd:
    with current:
        parent = openat2(current.fileno(), "..", DIRECTORY_FLAGS, _HERE)
    if _identity(parent.fileno()) != expected:
        parent.close()
        raise HostileHome("A directory of the home was moved away while it was looked through.")
    return parent
