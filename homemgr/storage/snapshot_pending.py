"""Snapshots on their way: what has no name of a snapshot yet, and goes again if it never gets one.

Whoever is killed in between leaves what a sweep deletes, or finishes, see `snapshot_exchange`.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeBusy, PathExists
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.record import snapshots
from homemgr.storage import snapshot_entry
from homemgr.storage.directory import lock_tree
from homemgr.storage.paths import location
from homemgr.storage.snapshot_shelf import GONE_PREFIX, clear, entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.files import Fd
    from homemgr.record.snapshots import Note

#: Names of what is not yet a snapshot: prefix, NAME, dot, random digits.
NEW_PREFIX: Final = ".#new-"
_RANDOM_BYTES: Final = 4


class Pending:
    """A snapshot on its way: a directory that is locked, and deleted unless it is finished."""

    def __init__(self, shelf: Fd, now: str, place: Fd) -> None:
        """Borrow ``shelf``; own ``place``, called ``now`` there."""
        self._shelf = shelf
        self._now = now
        self._stays = False
        self.place = place

    def write_note(self, note: Note) -> None:
        """Store what is known about it, durably."""
        snapshot_entry.write_note(self.place, note)

    def publish(self, name: str) -> None:
        """Make it the snapshot ``name``, durably; PathExists if there is one."""
        shelf = self._shelf.fileno()
        try:
            renameat2(shelf, self._now, shelf, name, RENAME_NOREPLACE)
        except FileExistsError as error:
            raise PathExists(f"There is a snapshot {name!r} already.") from error
        self._stays = True
        os.fsync(shelf)

    def close(self) -> None:
        """Let go; delete what is not finished."""
        self.place.close()
        if not self._stays:
            clear(self._shelf, self._now)

    def keep(self) -> None:
        """From here on it is for `sweep` to say what becomes of it."""
        self._stays = True


@contextmanager
def begun(shelf: Fd, name: str) -> Iterator[Pending]:
    """A new snapshot, until the end of the block; PathExists if there is one of the name."""
    snapshots.check_name(name)
    if name in entries(shelf):
        raise PathExists(f"There is a snapshot {name!r} already.")
    now = f"{NEW_PREFIX}{name}.{secrets.token_hex(_RANDOM_BYTES)}"
    with ExitStack() as on_failure:
        os.mkdir(now, 0o700, dir_fd=shelf.fileno())
        on_failure.callback(clear, shelf, now)
        place = lock_tree(shelf, now)
        if place is None:
            raise HomeBusy(f"{location(shelf.fileno())} is being swept; try again.")
        on_failure.pop_all()
    pending = Pending(shelf, now, place)
    try:
        yield pending
    finally:
        pending.close()


def reopen(shelf: Fd, entry: str) -> Pending | None:
    """What a killed process left unfinished, ours alone; None if somebody works on it."""
    place = lock_tree(shelf, entry)
    return None if place is None else Pending(shelf, entry, place)


def leftovers(shelf: Fd) -> list[str]:
    """The names of what is not finished, or not wanted any more."""
    return [entry for entry in entries(shelf) if entry.startswith((NEW_PREFIX, GONE_PREFIX))]
