"""Where the snapshots of homes lie: beside them, on the same file system, for root alone.

Layout: ``.homemgr-snapshots/USER/`` is the shelf of one user, see `snapshot_entry` for what is
on it and `snapshot_pending` for what is not there yet. Here whole shelves are found and made,
locked, moved and taken away.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeBusy, HomeError, InvalidArgs, PathExists, UnsafePath
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.storage.directory import original_name
from homemgr.storage.paths import location
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

DIRECTORY: Final = ".homemgr-snapshots"

#: Names of what is no longer wanted, on a shelf or beside shelves: prefix, NAME, dot, digits.
GONE_PREFIX: Final = ".#gone-"
_RANDOM_BYTES: Final = 4

#: How long another operation on the same snapshots is waited for (s), and how often asked.
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.02
#: How often others may be faster with a directory that is made.
_RACES: Final = 20


def open_shelf(parent: Fd, user: str) -> Fd | None:
    """The directory of the snapshots of ``user``; None if there are none. `UnsafePath`."""
    top = _open_private(parent, DIRECTORY)
    if top is None:
        return None
    with top:
        return _open_private(top, user)


def make_shelf(parent: Fd, user: str) -> Fd:
    """The same, made where it is missing."""
    for _ in range(_RACES):
        # With the last one of others the directory of all goes.
        with suppress(FileNotFoundError):
            _make_private(parent, DIRECTORY)
            with _required(_open_private(parent, DIRECTORY), parent) as top:
                _make_private(top, user)
                return _required(_open_private(top, user), top)
    raise HomeBusy(f"Directories in {location(parent.fileno())} disappear as soon as made.")


def _make_private(parent: Fd, name: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent.fileno())
        os.fsync(parent.fileno())


def _open_private(parent: Fd, name: str) -> Fd | None:
    try:
        fd = Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        where = os.path.join(location(parent.fileno()), name)
        raise UnsafePath(f"{where} is no directory; snapshots are stored there.") from error
    found = os.fstat(fd.fileno())
    if found.st_uid != 0 or found.st_mode & 0o077:
        where = location(fd.fileno())
        fd.close()
        raise UnsafePath(f"{where} must be root's with mode 0700: snapshots are stored there.")
    return fd


def _required(fd: Fd | None, parent: Fd) -> Fd:
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, "taken away", location(parent.fileno()))
    return fd


@contextmanager
def held(shelf: Fd, *, alone: bool) -> Iterator[None]:
    """Have the snapshots of one home to oneself, or share them with others that only read.

    `HomeBusy` if others have them for too long.
    """
    with Fd.open(".", DIRECTORY_FLAGS, dir_fd=shelf.fileno()) as lock:
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                # Not waited for in the kernel, which knows no deadline.
                fcntl.flock(lock.fileno(), how | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise HomeBusy(
                        "Another operation on the snapshots of this home is running."
                    ) from error
            time.sleep(_PAUSE_S)
        yield


def set_aside(parent: Fd, user: str) -> str:
    """Have no snapshots of ``user`` any more, durably; `sweep_aside` deletes them.

    Gives what `take_back` wants; nothing if there were none.
    """
    top = _open_private(parent, DIRECTORY)
    if top is None:
        return ""
    if "/" in user or not user or user.startswith("."):
        raise InvalidArgs(f"{user!r} cannot be the name of a user.")
    aside = gone_name(user)
    with top:
        try:
            renameat2(top.fileno(), user, top.fileno(), aside, RENAME_NOREPLACE)
        except FileNotFoundError:
            return ""
        os.fsync(top.fileno())
    return aside


def take_back(parent: Fd, user: str, aside: str) -> None:
    """Have snapshots again that were set aside, unless they were swept."""
    with (
        suppress(FileNotFoundError),
        _required(_open_private(parent, DIRECTORY), parent) as top,
    ):
        renameat2(top.fileno(), aside, top.fileno(), user, RENAME_NOREPLACE)
        os.fsync(top.fileno())


def sweep_aside(parent: Fd, user: str | None = None) -> None:
    """Delete what was set aside, of ``user`` or of everybody, as far as that is possible."""
    top = _open_private(parent, DIRECTORY)
    if top is None:
        return
    with top:
        for entry in entries(top):
            is_aside = entry.startswith(GONE_PREFIX)
            if is_aside and user in (None, original_name(entry, GONE_PREFIX)):
                clear(top, entry)
    # Somebody else's are in it, or come to be in it just now.
    with suppress(OSError):
        os.rmdir(DIRECTORY, dir_fd=parent.fileno())


def move(source: Fd, target: Fd, user: str) -> None:
    """Have the snapshots of ``user`` in another directory of the file system, durably.

    May be repeated. Raises PathExists if there are others of that name. The caller holds them.
    """
    top = _open_private(source, DIRECTORY)
    if top is None:
        return
    with top:
        if user not in entries(top):
            return
        _make_private(target, DIRECTORY)
        with _required(_open_private(target, DIRECTORY), target) as there:
            # One that holds nothing is in nobody's way.
            with suppress(OSError):
                os.rmdir(user, dir_fd=there.fileno())
            try:
                renameat2(top.fileno(), user, there.fileno(), user, RENAME_NOREPLACE)
            except FileExistsError as error:
                raise PathExists(
                    f"{location(there.fileno())}/{user} exists already: remove it if its snapshots"
                    f" are not of the present home area of {user}."
                ) from error
            # The new name first: after a power cut there may be both, but never none.
            os.fsync(there.fileno())
        os.fsync(top.fileno())
    with suppress(OSError):
        # It stays as long as there are snapshots of others in it.
        os.rmdir(DIRECTORY, dir_fd=source.fileno())


def users(parent: Fd) -> list[str]:
    """Of whom there may be snapshots."""
    top = _open_private(parent, DIRECTORY)
    if top is None:
        return []
    with top:
        return [entry for entry in sorted(entries(top)) if not entry.startswith(".")]


def entries(directory: Fd) -> list[str]:
    """What is in there now; opened anew, as btrfs shows no entry younger than the descriptor."""
    with Fd.open(".", DIRECTORY_FLAGS, dir_fd=directory.fileno()) as fresh:
        return os.listdir(fresh.fileno())


def gone_name(name: str) -> str:
    """What ``name`` is called from the moment on in which it is not wanted any more."""
    return f"{GONE_PREFIX}{name}.{secrets.token_hex(_RANDOM_BYTES)}"


def clear(parent: Fd, name: str) -> None:
    """Delete what is not wanted, as far as that is possible now."""
    try:
        delete_tree(parent, name)
    except (HomeError, OSError) as error:
        where = location(parent.fileno())
        log.warning("%s/%s stays until the next start: %s", where, name, error)
