"""Rooms: directories for root alone, beside homes, that hold a home which is none yet or no more.

A room is called ``.#homemgr-room-``..., which is the name of no home, and no sweep goes into it:
what is in there is neither found nor deleted by anybody but who made it. Each step may be repeated.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import FileNotFound, HomeAbsent, InvalidArgs, PathExists, UnsafePath
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.record.names import stays
from homemgr.storage import directory, paths, staging, staying, subvolume
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.storage.kind import Storage

#: Of homes that are made and kept here, and of those that arrive from elsewhere.
PREFIX, ARRIVING_PREFIX = ".#homemgr-room-", ".#homemgr-inroom-"
_PREFIXES = (PREFIX, ARRIVING_PREFIX)


def make(path: str) -> Fd:
    """The room at ``path``, made if need be, where only root can enter what leads to it.

    Raises UnsafePath if something else is there.
    """
    _require_room(path)
    with paths.open_safe_parent(path) as parent:
        name = os.path.basename(path)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent.fileno())
            os.fsync(parent.fileno())
        return _open(parent, path)


def clear(path: str, storages: Iterable[Storage]) -> None:
    """Delete a room and what is in it, with the keys of it that are in memory; none is no error.

    A home in it must not be in use. Raises UnsafePath if something else is there, which stays.
    """
    _require_room(path)
    with suppress(FileNotFound), paths.open_safe_parent(path) as parent:
        name = os.path.basename(path)
        try:
            room = _open(parent, path)
        except FileNotFoundError:
            return
        with room:
            for entry in os.listdir(room.fileno()):
                if not entry.startswith("."):
                    directory.set_aside(room, entry)
            # Each knows what else than its files it has to take away.
            for storage in storages:
                storage.sweep(room)
        delete_tree(parent, name)
        os.fsync(parent.fileno())


def _open(parent: Fd, path: str) -> Fd:
    name = os.path.basename(path)
    try:
        return openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise UnsafePath(
            f"{path} is not a directory, and homemgr needs one of that name: move away what is"
            " there, and try again."
        ) from error


def leave(path: str) -> None:
    """Delete a room if it holds nothing any more, durably: soon nobody knows of it."""
    _require_room(path)
    with suppress(OSError, FileNotFound), paths.open_safe_parent(path) as parent:
        os.rmdir(os.path.basename(path), dir_fd=parent.fileno())
        os.fsync(parent.fileno())


def move(old: str, new: str, image: str) -> None:
    """Rename the image with this id (`staging.tree_id`) from one path to the other, durably.

    If that was done before, nothing is left to do. A room it is to lie in is made. Raises
    PathExists and HomeAbsent if something else, or nothing, is where it should be.
    """
    if os.path.basename(os.path.dirname(new)).startswith(_PREFIXES):
        make(os.path.dirname(new)).close()
    old_name, new_name = os.path.basename(old), os.path.basename(new)
    with paths.open_safe_parent(new) as target:
        if staging.tree_at(target, new_name) == image:
            # By one who was killed, perhaps before it was on disk.
            os.fsync(target.fileno())
            return
        with paths.open_safe_parent(old) as source:
            found = staging.tree_at(source, old_name)
            is_there = staging.is_there(source, old_name)
            if not is_there and not staging.is_there(target, new_name):
                raise HomeAbsent(f"There is neither {old} nor {new}.")
            if found != image:
                raise PathExists(
                    f"{old if is_there else new} is another one than the home area that was to be"
                    f" moved from {old} to {new}; nothing was done to it."
                )
            try:
                with subvolume.movable(source, old_name):
                    renameat2(
                        source.fileno(), old_name, target.fileno(), new_name, RENAME_NOREPLACE
                    )
            except FileExistsError as error:
                raise PathExists(f"{new} exists already.") from error
            # The new name first: after a power cut there may be both, but never none.
            os.fsync(target.fileno())
            os.fsync(source.fileno())


def image_at(path: str) -> str:
    """What tells the image at ``path`` from all others, as `move` wants it; empty without one."""
    if stays(path):
        return staying.image_at(path)
    with suppress(FileNotFound), paths.open_safe_parent(path) as parent:
        return staging.tree_at(parent, os.path.basename(path))
    return ""


def is_there(path: str) -> bool:
    """Whether there is something at ``path``."""
    with suppress(FileNotFound), paths.open_safe_parent(path) as parent:
        return staging.is_there(parent, os.path.basename(path))
    return False


def _require_room(path: str) -> None:
    if not os.path.basename(path).startswith(_PREFIXES):
        raise InvalidArgs(f"{path} is no place for a home area that is made or kept.")
