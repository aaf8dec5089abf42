"""A home as it is at one moment: read-only snapshots of a home that is a btrfs subvolume.

A walk through a home in use sees one file as of now and the next as of a minute later; in a
snapshot all is of one moment, and stays: what programs had synchronised is in it, as it would
be after a power cut, so that a database that survives that survives this. Each lies beside the
home in a directory of its own, that only root can enter, and goes with who took it; what a
killed process left is deleted by `directory.sweep`, and by who next takes one of the same home.
One may be left on purpose, to be compared with later; it goes with the home.

Only subvolumes have this. A directory on xfs or btrfs could be copied file by file with
FICLONE, but that is a walk that opens, creates and deletes every file, longer than the pass it
would serve, and the copy is of no single moment either. What it does give is each file for
itself as of one moment; that is had for less by cloning those only that changed while they
were read, which are few: `Snapshots.still`.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import btrfs, reflink
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.storage.directory import (
    BASE_PREFIX,
    RANDOM_BYTES,
    SNAPSHOT_PREFIX,
    lock_tree,
    original_name,
    sweep_one,
)
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is answered to who wants files to share blocks where that is impossible for all of them.
_CANNOT_SHARE = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY)

log = logging.getLogger(__name__)


#: What a snapshot is called in its directory.
_NAME = "home"


class Moment:
    """A home as it is to be read."""

    __slots__ = ("fd", "lock", "place")

    def __init__(self, fd: Fd, place: str = "", lock: Fd | None = None) -> None:
        """Of the snapshot in the directory ``place``, which is locked; or the home itself."""
        self.fd = fd
        self.place = place
        self.lock = lock

    @property
    def is_still(self) -> bool:
        """Whether it is a snapshot, and not the home, which goes on changing."""
        return bool(self.place)

    def close(self) -> None:
        """Let go of a snapshot, which stays."""
        self.fd.close()
        if self.lock is not None:
            self.lock.close()


def take_whole(home: Fd, place: Fd, name: str) -> bool:
    """Make ``name`` in ``place`` a snapshot of the subvolume ``home``; False if it is not whole.

    Then there are other subvolumes in the home, which it shows as empty directories.
    """
    btrfs.create_snapshot(home.fileno(), place.fileno(), name)
    # Asked afterwards, it counts those that the snapshot lacks.
    return not btrfs.has_subvolumes(home.fileno())


def has_base(parent: Fd, file_name: str) -> bool:
    """Whether an earlier run has left a snapshot of the home ``file_name`` in ``parent``."""
    return any(
        name.startswith(BASE_PREFIX) and original_name(name, BASE_PREFIX) == file_name
        for name in os.listdir(parent.fileno())
    )


class Snapshots:
    """Takes snapshots of one home; a context manager, which leaves none behind but by `leave`."""

    def __init__(self, parent: Fd, file_name: str, home: Fd, *, may_take: bool = True) -> None:
        """Borrow ``home``, called ``file_name``, and the directory that holds it.

        Without ``may_take`` there are none: it does not lie in that directory as it is.
        """
        self._parent = parent
        self._file_name = file_name
        self._home = home
        self._is_possible = may_take and btrfs.is_subvolume(home.fileno())
        #: False once the file system has said that files cannot share blocks.
        self._can_share = True
        #: The snapshot that was kept, to compare others with.
        self.base: Moment | None = None

    def go_on_with(self, home: Fd) -> None:
        """Read ``home`` from here on, which is the same one, opened anew."""
        self._home = home

    def __enter__(self) -> Snapshots:
        """Delete what killed processes left of this home."""
        self._sweep(SNAPSHOT_PREFIX, but="")
        return self

    def __exit__(self, *_: object) -> None:
        """Delete all of ours but what was left on purpose."""
        if self.base is not None and self.base.place.startswith(BASE_PREFIX):
            self.base.close()
            self.base = None
        self._drop_base()

    # -- one moment ------------------------------------------------------------------------

    @contextmanager
    def taken(self) -> Iterator[Moment]:
        """The home as it is now, until the end of the block or for as long as it is the base.

        The home itself where it cannot be had otherwise: it is no subvolume, there is no room,
        or there are others in it, which a snapshot would show as empty directories.
        """
        moment = self._take() if self._is_possible else None
        if moment is None:
            self._drop_base()
            yield Moment(self._home)
            return
        try:
            yield moment
        finally:
            if moment is not self.base:
                self._drop(moment)

    def still(self, file: int) -> Fd | None:
        """What an open file of the home holds at this moment; None if that cannot be had.

        Shares the blocks of the file, so that it takes no room; it has no name, and goes with
        its descriptor.
        """
        flags = os.O_TMPFILE | os.O_RDWR
        with ExitStack() as on_failure, suppress(OSError):
            if self._can_share:
                copy = Fd.open(".", flags, 0o600, dir_fd=self._parent.fileno())
                on_failure.enter_context(copy)
                try:
                    reflink.clone(file, copy.fileno())
                except OSError as error:
                    self._can_share = error.errno not in _CANNOT_SHARE
                    raise
                on_failure.pop_all()
                return copy
        return None

    # -- what others are compared with ---------------------------------------------------------

    def keep(self, moment: Moment) -> None:
        """Make a snapshot the base, in the place of the one before."""
        if moment.is_still:
            self._drop_base()
            self.base = moment

    def leave(self) -> str:
        """Let the base stay when we go; gives what `resume` wants, nothing if there is no base."""
        base = self.base
        if base is None:
            return ""
        token = base.place.rpartition(".")[2]
        place = f"{BASE_PREFIX}{self._file_name}.{token}"
        if base.place != place:
            parent = self._parent.fileno()
            renameat2(parent, base.place, parent, place, RENAME_NOREPLACE)
            base.place = place
        return token

    def resume(self, token: str) -> None:
        """Have the base again that was left, if it is there; all others of this home go."""
        place = f"{BASE_PREFIX}{self._file_name}.{token}"
        self._sweep(BASE_PREFIX, but=place)
        if token and self._is_possible and (lock := lock_tree(self._parent, place)):
            try:
                self.base = Moment(self._opened(lock), place, lock)
            except OSError as error:
                log.warning("%s is of no use: %s", place, error)
                lock.close()

    def is_as_base(self) -> bool:
        """Whether nothing in the home was changed since the base was taken of it.

        What is in memory only has to be written out before.
        """
        if self.base is None:
            return False
        try:
            return btrfs.is_unchanged_since(self._home.fileno(), self.base.fd.fileno())
        except OSError as error:
            log.info("Btrfs does not tell whether a home has changed: %s", error)
            return False

    def _drop_base(self) -> None:
        if self.base is not None:
            self._drop(self.base)
            self.base = None

    # -- snapshots -------------------------------------------------------------------------------

    def _take(self) -> Moment | None:
        place = f"{SNAPSHOT_PREFIX}{self._file_name}.{secrets.token_hex(RANDOM_BYTES)}"
        with ExitStack() as on_failure:
            try:
                os.mkdir(place, 0o700, dir_fd=self._parent.fileno())
                on_failure.callback(self._clear, place)
                lock = lock_tree(self._parent, place)
                if lock is None:
                    raise BlockingIOError(f"{place} was taken by a sweep")
                on_failure.enter_context(lock)
                if take_whole(self._home, lock, _NAME):
                    moment = Moment(self._opened(lock), place, lock)
                    on_failure.pop_all()
                    return moment
            except OSError as error:
                log.warning("There is no snapshot of a home area, it is read itself: %s", error)
            self._is_possible = False
            return None

    @staticmethod
    def _opened(place: Fd) -> Fd:
        return Fd.open(_NAME, DIRECTORY_FLAGS, dir_fd=place.fileno())

    def _drop(self, moment: Moment) -> None:
        moment.close()
        self._clear(moment.place)

    def _clear(self, place: str) -> None:
        try:
            delete_tree(self._parent, place)
        except (HomeError, OSError) as error:
            log.warning("%s stays until the next start: %s", place, error)

    def _sweep(self, prefix: str, *, but: str) -> None:
        for name in os.listdir(self._parent.fileno()):
            is_ours = name.startswith(prefix) and original_name(name, prefix) == self._file_name
            if is_ours and name != but:
                sweep_one(self._parent, name)
