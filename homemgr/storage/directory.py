"""Storage `directory`: the home is a plain directory tree, every file of it nobody's.

New homes are built under a dot name and renamed when complete; old ones are renamed
away before they are deleted. Whatever is killed in between, `sweep` cleans up.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import (
    FileNotFound,
    HomeAbsent,
    HomeBusy,
    HomeError,
    HostileHome,
    InvalidArgs,
    NotSupported,
    PathExists,
    from_os_error,
)
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd, write_all
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.storage.blobs import BLOBS, check_blobs, place_blobs
from homemgr.storage.embedded import IDENTITY
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.paths import location, open_safe_parent
from homemgr.storage.skeleton import copy_skeleton
from homemgr.storage.synchronize import fsync_tree
from homemgr.storage.top import Top as Top
from homemgr.storage.top import attach as attach
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

#: Names of trees that are not yet, or no longer, a home, and of what holds snapshots of one:
#: prefix, NAME, dot, random digits.
NEW_PREFIX = ".#homemgr-new-"
GONE_PREFIX = ".#homemgr-gone-"
SNAPSHOT_PREFIX = ".#homemgr-snap-"
#: One that stays with the home, to see what changes in it.
BASE_PREFIX = ".#homemgr-base-"

#: Two operations on one name never meet; longer would cost room for the name.
RANDOM_BYTES = 4

#: A snapshot that was kept takes the room of what was deleted since; it is not kept longer (s).
_BASE_MAX_AGE_S = 14 * 86400

#: How often a sweep may be faster than we with our own new directory.
_RACES = 20


class Swept(NamedTuple):
    """What killed operations left: names being created or removed, or of which was a snapshot."""

    new: list[str]
    gone: list[str]
    snapshots: list[str]


def open_home(image_path: str) -> Top:
    """Open the home at ``image_path`` as it lies on disk."""
    with _open_parent(image_path) as parent:
        try:
            fd = openat2(
                parent.fileno(),
                os.path.basename(image_path),
                DIRECTORY_FLAGS,
                RESOLVE_NO_SYMLINKS,
            )
        except FileNotFoundError as error:
            raise HomeAbsent(f"There is no home area at {image_path}.") from error
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise HostileHome(f"{image_path} is not a directory.") from error
    return Top(fd, image_path)


def _open_parent(image_path: str) -> Fd:
    try:
        return open_safe_parent(image_path)
    except FileNotFound as error:
        raise HomeAbsent(f"There is no home area at {image_path}.") from error


def make_directory(parent: Fd, name: str) -> None:
    """Make an empty directory for the caller alone."""
    os.mkdir(name, 0o700, dir_fd=parent.fileno())


def create(
    base: Fd,
    file_name: str,
    *,
    access_mode: int,
    skeleton: str | None,
    identity: bytes,
    blobs: Mapping[str, int],
    make_top: Callable[[Fd, str], None] = make_directory,
    prepare_top: Callable[[Fd], None] | None = None,
) -> list[str]:
    """Make the home ``file_name`` in ``base``: complete and durable, or not there at all.

    Returns the paths of what is in the skeleton but could not be copied. ``make_top`` makes
    the empty top directory, ``prepare_top`` gets it before anything is put into it.
    """
    _check_name(file_name)
    check_blobs(blobs)
    # The rename decides in the end; asking first spares the work.
    if _exists(base, file_name):
        raise _taken(base, file_name)
    with ExitStack() as undo:
        with filesystem_identity(NOBODY, NOBODY):
            temporary, top = _make_top(base, file_name, make_top, undo)
        if prepare_top is not None:
            prepare_top(top)
        with filesystem_identity(NOBODY, NOBODY):
            skipped = populate(top, access_mode, skeleton, identity, blobs)
        try:
            # Still locked: a sweep must not find it idle between two of our steps.
            renameat2(base.fileno(), temporary, base.fileno(), file_name, RENAME_NOREPLACE)
        except FileExistsError as error:
            raise _taken(base, file_name) from error
        undo.pop_all()
        top.close()
    # Only now does the home survive a power cut.
    os.fsync(base.fileno())
    return skipped


def _make_top(
    base: Fd, file_name: str, make: Callable[[Fd, str], None], undo: ExitStack
) -> tuple[str, Fd]:
    """A new directory, locked to tell `sweep` that somebody is at work; ``undo`` removes it."""
    for _ in range(_RACES):
        temporary = f"{NEW_PREFIX}{file_name}.{secrets.token_hex(RANDOM_BYTES)}"
        make(base, temporary)
        top = lock_tree(base, temporary)
        if top is not None:
            undo.callback(delete_tree, base, temporary)
            undo.callback(top.close)
            _require_nobody(top)
            return temporary, top
    raise HomeBusy(f"New directories in {location(base.fileno())} disappear as soon as made.")


def open_tree(parent: Fd, name: str) -> Fd | None:
    """The directory ``name``; None if there is none."""
    try:
        return Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno())
    except OSError as error:
        # Not a directory, so not a tree of ours: leave it to whoever made it.
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
            return None
        raise


def lock_tree(parent: Fd, name: str) -> Fd | None:
    """The directory ``name``, ours alone until closed; None if it is another's, or none."""
    tree = open_tree(parent, name)
    if tree is None:
        return None
    with ExitStack() as on_failure:
        on_failure.callback(tree.close)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(tree.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed or deleted by who had the lock until now.
            found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
            if os.path.samestat(found, os.fstat(tree.fileno())):
                on_failure.pop_all()
                return tree
    return None


def populate(
    top: Fd,
    access_mode: int,
    skeleton: str | None,
    identity: bytes,
    blobs: Mapping[str, int],
) -> list[str]:
    """Put into an empty directory what a new home holds, durably; what could not be copied."""
    skipped: list[str] = []
    if skeleton is not None:
        skipped = copy_skeleton(skeleton, top, leave_out={IDENTITY, BLOBS})
    if blobs:
        place_blobs(top, blobs)
    # Last: a tree with a record is a complete home.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    with Fd.open(IDENTITY, flags, 0o600, dir_fd=top.fileno()) as record:
        os.fchmod(record.fileno(), 0o600)
        write_all(record.fileno(), identity)
    os.fchmod(top.fileno(), access_mode & 0o7777)
    # Once and for all of it: every wait for the disk costs more than the rest together.
    fsync_tree(top)
    return skipped


def _require_nobody(top: Fd) -> None:
    found = os.fstat(top.fileno())
    if (found.st_uid, found.st_gid) != (NOBODY, NOBODY):
        # Mount options like grpid or uid= decide about owners before we do.
        raise NotSupported(
            f"New files at {location(top.fileno())} get the owner {found.st_uid}:{found.st_gid};"
            f" expected {NOBODY}:{NOBODY}. Check the mount options of the file system."
        )


def set_aside(parent: Fd, file_name: str) -> str:
    """Rename the home ``file_name`` so that it is no home any more; returns its new name."""
    _check_name(file_name)
    aside = f"{GONE_PREFIX}{file_name}.{secrets.token_hex(RANDOM_BYTES)}"
    try:
        renameat2(parent.fileno(), file_name, parent.fileno(), aside, RENAME_NOREPLACE)
    except FileNotFoundError as error:
        where = location(parent.fileno())
        raise HomeAbsent(f"There is no {file_name} in {where}.") from error
    # Before the record is dropped the old name must be gone for good.
    os.fsync(parent.fileno())
    return aside


def delete_aside(parent: Fd, file_name: str) -> None:
    """Delete everything that `set_aside` renamed away from ``file_name``, and what was kept of it.

    A failure names what stays; `sweep` tries again.
    """
    _check_name(file_name)
    # Several, if earlier removals of the same name were killed.
    for entry in _entries(parent):
        if any(
            entry.startswith(prefix) and original_name(entry, prefix) == file_name
            for prefix in (GONE_PREFIX, BASE_PREFIX)
        ):
            try:
                delete_tree(parent, entry)
            except OSError as error:
                where = os.path.join(location(parent.fileno()), entry)
                raise from_os_error(error, f"Deleting {where}, which stays for now") from error


def _entries(directory: Fd) -> list[str]:
    """What is in there now; opened anew, as btrfs shows no entry younger than the descriptor."""
    with Fd.open(".", DIRECTORY_FLAGS, dir_fd=directory.fileno()) as fresh:
        return os.listdir(fresh.fileno())


def remove(parent: Fd, file_name: str) -> None:
    """Delete the home ``file_name``; once this has begun it never comes back half."""
    set_aside(parent, file_name)
    delete_aside(parent, file_name)


def sweep(parent: Fd) -> Swept:
    """Delete what killed operations left behind; trees somebody still works on stay."""
    swept = Swept([], [], [])
    prefixes = (NEW_PREFIX, GONE_PREFIX, SNAPSHOT_PREFIX)
    for entry in sorted(os.listdir(parent.fileno())):
        for prefix, names in zip(prefixes, swept, strict=True):
            if entry.startswith(prefix) and sweep_one(parent, entry):
                names.append(original_name(entry, prefix))
        if entry.startswith(BASE_PREFIX) and _is_useless(parent, entry):
            sweep_one(parent, entry)
    return swept


def _is_useless(parent: Fd, base: str) -> bool:
    """Whether a snapshot that was kept has no home any more, or is too old to be of help."""
    if not _exists(parent, original_name(base, BASE_PREFIX)):
        return True
    found = os.stat(base, dir_fd=parent.fileno(), follow_symlinks=False)
    return time.time() - found.st_mtime > _BASE_MAX_AGE_S


def sweep_one(parent: Fd, name: str) -> bool:
    """Delete one tree; False if it has to stay, which must not keep the others."""
    tree = lock_tree(parent, name)
    if tree is None:
        return False
    with tree:
        try:
            delete_tree(parent, name)
        except (HomeError, OSError) as error:
            log.warning("%s/%s stays for now: %s", location(parent.fileno()), name, error)
            return False
    return True


def original_name(entry: str, prefix: str) -> str:
    """The NAME in the name of such a tree."""
    return entry.removeprefix(prefix).rpartition(".")[0]


def _check_name(file_name: str) -> None:
    room = 255 - len(GONE_PREFIX) - 1 - 2 * RANDOM_BYTES
    if not file_name or file_name.startswith(".") or "/" in file_name or "\0" in file_name:
        raise InvalidArgs(f"{file_name!r} cannot be the file name of a home area.")
    if len(os.fsencode(file_name)) > room:
        raise InvalidArgs(
            f"{file_name!r} is too long; a home's file name has at most {room} bytes."
        )


def _exists(parent: Fd, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _taken(base: Fd, file_name: str) -> PathExists:
    return PathExists(f"{os.path.join(location(base.fileno()), file_name)} exists already.")
