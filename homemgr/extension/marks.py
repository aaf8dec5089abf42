"""Marks that hide an extension's files: whiteouts and opaque directories of overlayfs.

Reads them in a home's own directory, takes them out of it, and makes a layer in memory
that hides the same again. A mark never stays in the home longer than a session.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.extension import visit
from homemgr.extension.home_side import PATH_LIMIT
from homemgr.extension.memory import Remembered
from homemgr.extension.stack import Layer, Owner, copy_attributes, mount_memory
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import openat2
from homemgr.kernel.statx import birth_time_ns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_PREFIX = "trusted.overlay."
_OPAQUE = f"{_PREFIX}opaque"
_ORIGIN = f"{_PREFIX}origin"

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: How messages call the layer that hides what is remembered.
_HIDING = "what was deleted"


def scan(directory: Fd) -> Remembered:
    """What overlayfs marked in the home's own ``directory``: deleted, and replaced by mkdir."""
    deleted: set[str] = set()
    opaque: set[str] = set()

    def enter(path: Sequence[str], fd: int) -> list[str]:
        below: list[str] = []
        if path and _is_opaque(fd):
            opaque.add("/".join(path))
        for entry in visit.list_entries(fd):
            if entry.is_directory:
                below.append(entry.name)
            elif entry.is_special and is_whiteout(fd, entry.name):
                deleted.add("/".join((*path, entry.name)))
        return below

    visit.visit(directory, enter)
    return Remembered(_sayable(deleted), _sayable(opaque))


def _sayable(paths: Collection[str]) -> frozenset[str]:
    # What is deeper than a path can be long is not found by path either.
    return frozenset(path for path in paths if len(os.fsencode(path)) <= PATH_LIMIT)


def is_whiteout(directory: int, name: str) -> bool:
    """Whether ``name`` is what overlayfs leaves in the place of a deleted file."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
    return False


def _is_opaque(fd: int) -> bool:
    with suppress(OSError):
        return os.getxattr(fd, _OPAQUE) == b"y"
    return False


def purge(directory: Fd, since_ns: int | None = None) -> list[str]:
    """Take every mark and attribute of overlayfs out of ``directory``; what could not be.

    Directories that overlayfs made since then as copies go too if nothing is in them.
    """
    problems: list[str] = []
    copied: list[bool] = []

    def enter(path: Sequence[str], fd: int) -> list[str]:
        below: list[str] = []
        copied.append(_is_copy(fd, since_ns))
        _strip(f"/proc/self/fd/{fd}/.", problems, path)
        for entry in visit.list_entries(fd):
            if entry.is_directory:
                below.append(entry.name)
            elif entry.is_special and is_whiteout(fd, entry.name):
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
            else:
                _strip(f"/proc/self/fd/{fd}/{entry.name}", problems, (*path, entry.name))
        return below

    def leave(parent: int, name: str) -> None:
        if copied.pop():
            visit.remove_empty(parent, name)

    visit.visit(directory, enter, leave)
    return problems


def _is_copy(fd: int, since_ns: int | None) -> bool:
    if since_ns is None or _ORIGIN not in os.listxattr(fd):
        return False
    # The attribute is also given to directories of the user; theirs were there before.
    born_ns = birth_time_ns(fd)
    return born_ns is not None and born_ns >= since_ns


def _strip(where: str, problems: list[str], path: Sequence[str]) -> None:
    try:
        for name in os.listxattr(where, follow_symlinks=False):
            if name.startswith(_PREFIX):
                os.removexattr(where, name, follow_symlinks=False)
    except OSError as error:
        # One file that cannot be changed (chattr(1)) is no reason to leave the others.
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            problems.append(f"{'/'.join(path)}: {error.strerror}")


def remove_whiteouts(directory: Fd, paths: Collection[str]) -> None:
    """Take the whiteouts at ``paths`` away; what is none stays."""
    for path in paths:
        above, name = os.path.split(path)
        with suppress(OSError), _open(directory, above) as parent:
            if is_whiteout(parent.fileno(), name):
                os.unlink(name, dir_fd=parent.fileno())


def make_transparent(directory: Fd, path: str) -> None:
    """Let the directory ``path`` show what layers below have in theirs."""
    with suppress(OSError), _open(directory, path) as found:
        os.removexattr(found.fileno(), _OPAQUE)


def make_whiteouts(directory: Fd, paths: Collection[str], owner: Owner) -> None:
    """Put whiteouts at ``paths``; where something is, it stays."""
    for path in paths:
        above, name = os.path.split(path)
        with suppress(OSError), _open(directory, above) as parent, filesystem_identity(*owner):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent.fileno())


def _open(directory: Fd, path: str) -> Fd:
    return openat2(directory.fileno(), path or ".", DIRECTORY_FLAGS, visit.RESOLVE_GUARDED)


def shown(layers: Sequence[tuple[str, Fd]], paths: Collection[str]) -> frozenset[str]:
    """Those of ``paths`` that ``layers`` together would show."""
    return frozenset(path for path in paths if _is_shown(layers, path))


def first_with(layers: Sequence[tuple[str, Fd]], path: str) -> tuple[str, int] | None:
    """Name of the first layer with ``path``, and the mode of what it has there."""
    for name, directory in layers:
        with suppress(OSError), _look(directory, path) as found:
            return name, os.fstat(found.fileno()).st_mode
    return None


def _look(directory: Fd, path: str) -> Fd:
    return openat2(directory.fileno(), path, _LOOK, visit.RESOLVE_GUARDED)


def _is_shown(layers: Sequence[tuple[str, Fd]], path: str) -> bool:
    if first_with(layers, path) is None:
        return False
    # A file in a layer further up hides a directory of the same name with all in it.
    found = (first_with(layers, above) for above in _ancestors(path))
    return all(above is not None and stat.S_ISDIR(above[1]) for above in found)


def _ancestors(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


class Hiding:
    """A layer in memory that hides paths of the layers below it.

    Owns its detached mount, which must stay open until the overlay exists.
    """

    def __init__(
        self, layers: Sequence[tuple[str, Fd]], paths: Collection[str], owner: Owner
    ) -> None:
        """Make the layer for those of ``paths`` that ``layers`` have."""
        hidden = shown(layers, paths)
        # Below a whiteout there is nothing to hide.
        self._paths = {path for path in hidden if hidden.isdisjoint(_ancestors(path))}
        self._layers = layers
        self._owner = owner
        self._mount = mount_memory(owner, "10%") if self._paths else None
        if self._mount is not None:
            self._fill(self._mount)

    def _fill(self, mount: Fd) -> None:
        directories = {above for path in self._paths for above in _ancestors(path)}
        with filesystem_identity(*self._owner):
            for path in sorted(directories):
                os.mkdir(path, 0o700, dir_fd=mount.fileno())
        make_whiteouts(mount, self._paths, self._owner)
        # Last, as filling a directory changes its times; the upper ones last of all.
        for path in sorted(directories, reverse=True):
            with self._first_directory(path) as source, _open(mount, path) as target:
                copy_attributes(source, target)

    def _first_directory(self, path: str) -> Fd:
        for _, directory in self._layers:
            with suppress(OSError):
                return _open(directory, path)
        raise FileNotFoundError(path)

    def layers(self) -> list[tuple[str, Fd]]:
        """This layer and those it hides something of, in their order."""
        if self._mount is None:
            return list(self._layers)
        return [Layer(_HIDING, self._mount), *self._layers]

    def close(self) -> None:
        """Let go of the mount."""
        if self._mount is not None:
            self._mount.close()

    def __enter__(self) -> Hiding:
        """Own the mount until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go, whatever happened."""
        self.close()
