"""Put the files of a snapshot in the place of a home in one step, and keep what was there.

The files that shall be the home are made where the snapshot of its present state is going to
be, then both change places. A journal in there tells what was made: if the home's files are
found in its place, the exchange has happened, and what is left is to finish the snapshot.
So whatever is killed, there is one whole home under its name, and nothing else is kept.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import Final

from homemgr import files
from homemgr.errors import HomeError, NotSupported
from homemgr.files import GUARDED_FLAGS, Fd
from homemgr.kernel import btrfs
from homemgr.kernel.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from homemgr.storage import snapshot_limits, snapshot_pending, subvolume
from homemgr.storage.directory import original_name
from homemgr.storage.paths import location
from homemgr.storage.snapshot_entry import HOME
from homemgr.storage.snapshot_pending import NEW_PREFIX, Pending

log = logging.getLogger(__name__)

#: Says which files were made to be the home, see `_identity`, and then its name.
_JOURNAL: Final = "exchange"
_MOST_JOURNAL_BYTES: Final = 1000


def exchange(parent: Fd, file_name: str, pending: Pending, name: str) -> None:
    """Have what is ``home`` in ``pending`` as the home, and its old files as snapshot ``name``.

    All of it is on disk, and its note says what the old files are. Durable.
    """
    place = pending.place
    # Before the exchange: it is what keeps a sweep from deleting the old files of the home.
    journal = _identity(place) + b"\n" + os.fsencode(file_name)
    files.write_atomically(place, _JOURNAL, journal, 0o600)
    try:
        with subvolume.movable(parent, file_name):
            renameat2(place.fileno(), HOME, parent.fileno(), file_name, RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EXDEV):
            raise
        raise NotSupported(
            f"What is in the snapshot cannot take the place of {location(parent.fileno())}"
            f"/{file_name} in one step here ({os.strerror(error.errno)}); restore single files."
        ) from error
    # From here on a kill loses nothing: `finish` is what the next one does.
    pending.keep()
    os.fsync(parent.fileno())
    finish(parent, file_name, pending, name)


def put(parent: Fd, file_name: str, pending: Pending) -> None:
    """Have what is ``home`` in ``pending`` as the home, where there is none; durable."""
    place = pending.place.fileno()
    renameat2(place, HOME, parent.fileno(), file_name, RENAME_NOREPLACE)
    os.fsync(parent.fileno())


def finish(parent: Fd, file_name: str, pending: Pending, name: str) -> None:
    """Make a snapshot of what was the home until now."""
    place = pending.place
    with (
        Fd.open(HOME, os.O_RDONLY | GUARDED_FLAGS, dir_fd=place.fileno()) as old,
        Fd.open(file_name, os.O_RDONLY | GUARDED_FLAGS, dir_fd=parent.fileno()) as new,
    ):
        if stat.S_ISDIR(os.fstat(old.fileno()).st_mode):
            _hand_over(old, new, file_name)
            if btrfs.is_subvolume(old.fileno()):
                btrfs.make_read_only(old.fileno())
    pending.publish(name)
    # Not before: until it has its name, the journal is what keeps it from being deleted.
    os.unlink(_JOURNAL, dir_fd=place.fileno())


def _hand_over(old: Fd, new: Fd, file_name: str) -> None:
    """Have the size of the home kept to; the home itself is more important than that."""
    try:
        snapshot_limits.hand_over(old, new)
    except (HomeError, OSError) as error:
        log.warning("%s is not held to its size any more, resize it: %s", file_name, error)


def sweep(parent: Fd, shelf: Fd) -> None:
    """Finish, or delete, what killed processes left among the snapshots of one home."""
    for entry in snapshot_pending.leftovers(shelf):
        pending = snapshot_pending.reopen(shelf, entry)
        if pending is None:
            continue
        try:
            file_name = _exchanged_with(pending.place) if entry.startswith(NEW_PREFIX) else ""
            if file_name:
                pending.keep()
                finish(parent, file_name, pending, original_name(entry, NEW_PREFIX))
        except (HomeError, OSError) as error:
            # What cannot be looked at now may be all that there is of the home's old files.
            pending.keep()
            log.warning("%s/%s stays as it is: %s", location(shelf.fileno()), entry, error)
        finally:
            pending.close()


def _exchanged_with(place: Fd) -> str:
    """The name of the home whose old files these are; empty unless the exchange has happened.

    Then what is there is not what was made to be the home.
    """
    try:
        journal = files.read_bounded(place, _JOURNAL, _MOST_JOURNAL_BYTES)
        made, _, file_name = journal.partition(b"\n")
        return "" if made == _identity(place) else os.fsdecode(file_name)
    # Not begun, or deleted halfway after it had failed.
    except FileNotFoundError:
        return ""


def _identity(place: Fd) -> bytes:
    """What tells the files in ``place`` from others, wherever they are moved to."""
    with Fd.open(HOME, os.O_RDONLY | GUARDED_FLAGS, dir_fd=place.fileno()) as home:
        found = os.fstat(home.fileno())
        # All subvolumes have the same inode number, and another device after each start.
        if stat.S_ISDIR(found.st_mode) and btrfs.is_subvolume(home.fileno()):
            return b"subvolume " + btrfs.subvolume_id(home.fileno()).hex().encode()
        return b"inode %d" % found.st_ino
