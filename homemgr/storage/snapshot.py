"""A home as it is at one moment: read-only snapshots of a home that is a btrfs subvolume.

A walk through a home in use sees one file as of now and the next as of a minute later; in a
snapshot all is of one moment, and stays: what programs had synchronised is in it, as it would
be after a power cut, so that a database that survives that survives this. Snapshots lie beside
the home, in a directory that only root can enter, and go with who took them; what a killed
process left is deleted by `directory.sweep`, and by who next takes one of the same home.

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
from homemgr.storage.directory import RANDOM_BYTES, SNAPSHOT_PREFIX, lock_tree, sweep_one
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is answered to who wants files to share blocks where that is impossible for all of them.
_CANNOT_SHARE = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY)

log = logging.getLogger(__name__)


class Moment:
    """A home as it is to be read."""

    __slots__ = ("fd", "name")

    def __init__(self, fd: Fd, name: str) -> None:
        """Of the snapshot ``name``; without one, of the home itself, which goes on changing."""
        self.fd = fd
        self.name = name


class Snapshots:
    """Takes snapshots of one home; a context manager, which leaves none behind."""

    def __init__(self, parent: Fd, file_name: str, home: Fd) -> None:
        """Borrow ``home``, called ``file_name``, and the directory that holds it."""
        self._parent = parent
        self._prefix = f"{SNAPSHOT_PREFIX}{file_name}."
        self._home = home
        self._is_possible = btrfs.is_subvolume(home.fileno())
        #: Where they lie, locked as long as we live; None until the first.
        self._place: Fd | None = None
        self._closing = ExitStack()
        #: False once the file system has said that files cannot share blocks.
        self._can_share = True
        #: The snapshot that was kept, to compare others with.
        self.base: Moment | None = None

    def __enter__(self) -> Snapshots:
        """Delete what killed processes left of this home."""
        if self._is_possible:
            for name in os.listdir(self._parent.fileno()):
                if name.startswith(self._prefix):
                    sweep_one(self._parent, name)
        return self

    def __exit__(self, *_: object) -> None:
        """Delete all of ours."""
        self._drop_base()
        self._closing.close()

    @contextmanager
    def taken(self) -> Iterator[Moment]:
        """The home as it is now, until the end of the block or for as long as it is the base.

        The home itself where it cannot be had otherwise: it is no subvolume, there is no room,
        or there are others in it, which a snapshot would show as empty directories.
        """
        moment = self._take() if self._is_possible else None
        if moment is None:
            self._drop_base()
            yield Moment(self._home, "")
            return
        try:
            yield moment
        finally:
            if moment is not self.base:
                self._delete(moment)

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

    def keep(self, moment: Moment) -> None:
        """Make a snapshot the base, in the place of the one before."""
        if moment.name:
            self._drop_base()
            self.base = moment

    def _drop_base(self) -> None:
        if self.base is not None:
            self._delete(self.base)
            self.base = None

    def _take(self) -> Moment | None:
        name = secrets.token_hex(RANDOM_BYTES)
        try:
            place = self._place = self._place or self._make_place()
            btrfs.create_snapshot(self._home.fileno(), place.fileno(), name)
            # Asked afterwards, it counts those that the snapshot lacks.
            if not btrfs.has_subvolumes(self._home.fileno()):
                return Moment(Fd.open(name, DIRECTORY_FLAGS, dir_fd=place.fileno()), name)
        except OSError as error:
            log.warning("There is no snapshot of a home area, it is read itself: %s", error)
        self._is_possible = False
        self._destroy(name)
        return None

    def _make_place(self) -> Fd:
        name = self._prefix + secrets.token_hex(RANDOM_BYTES)
        os.mkdir(name, 0o700, dir_fd=self._parent.fileno())
        place = lock_tree(self._parent, name)
        if place is None:
            raise BlockingIOError(f"{name} was taken by a sweep")
        self._closing.callback(self._clear, name)
        self._closing.enter_context(place)
        return place

    def _clear(self, name: str) -> None:
        try:
            delete_tree(self._parent, name)
        except (HomeError, OSError) as error:
            log.warning("%s stays until the next start: %s", name, error)

    def _delete(self, moment: Moment) -> None:
        moment.fd.close()
        self._destroy(moment.name)

    def _destroy(self, name: str) -> None:
        """Delete one; what cannot be deleted goes, or stays, with the place."""
        if self._place is not None:
            with suppress(OSError):
                btrfs.destroy_subvolume(self._place.fileno(), name)
