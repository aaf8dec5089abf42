"""The snapshots on the shelf of one user: what is known of them, what they hold, their end.

``NAME/`` holds ``home``, which is a directory, a subvolume or the copy of an image, and
``note.json``. What is not finished, or no longer wanted, has another kind of name; so a name
is either that of a whole snapshot or of nothing.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

from homemgr import files
from homemgr.errors import HomeError, InvalidRecord, NoSuchSnapshot
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.record import snapshots
from homemgr.record.jsontext import pretty
from homemgr.storage.paths import location
from homemgr.storage.snapshot_shelf import entries, gone_name
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from homemgr.record.snapshots import Note

log = logging.getLogger(__name__)

#: What the files of a snapshot are called in its directory.
HOME: Final = "home"
_NOTE: Final = "note.json"
_MOST_NOTE_BYTES: Final = 2 << 20


def notes(shelf: Fd) -> list[Note]:
    """All whole snapshots, the oldest first; one whose note is of no use is only logged."""
    found = []
    for name in sorted(entries(shelf)):
        if name.startswith("."):
            continue
        try:
            found.append(read_note(shelf, name))
        except (HomeError, OSError) as error:
            log.warning("%s/%s is no snapshot: %s", location(shelf.fileno()), name, error)
    found.sort(key=lambda note: (note.taken_usec, note.name))
    return found


def read_note(shelf: Fd, name: str) -> Note:
    """What is known about the snapshot ``name``; raises NoSuchSnapshot, InvalidRecord."""
    with open_place(shelf, name) as place:
        note = _note_in(place)
    if note.name != name:
        raise InvalidRecord(f".name: expected {name!r}, found {note.name!r}.")
    return note


def _note_in(place: Fd) -> Note:
    return snapshots.parse(files.read_bounded(place, _NOTE, _MOST_NOTE_BYTES))


def write_note(place: Fd, note: Note) -> None:
    """Store in the directory of a snapshot what is known about it, durably."""
    text = pretty(note.to_json()).encode() + b"\n"
    files.write_atomically(place, _NOTE, text, 0o600)


def open_place(shelf: Fd, name: str) -> Fd:
    """The directory of the snapshot ``name``; raises NoSuchSnapshot, InvalidArgs."""
    try:
        return Fd.open(snapshots.check_name(name), DIRECTORY_FLAGS, dir_fd=shelf.fileno())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchSnapshot(f"There is no snapshot {name!r} of this home area.") from error


def open_home(shelf: Fd, name: str) -> Fd:
    """The top directory of the home in the snapshot ``name``; raises also NotADirectoryError."""
    with open_place(shelf, name) as place:
        return Fd.open(HOME, DIRECTORY_FLAGS, dir_fd=place.fileno())


def open_image(shelf: Fd, name: str) -> Fd:
    """The image in the snapshot ``name``."""
    with open_place(shelf, name) as place:
        return Fd.open(HOME, os.O_RDONLY | GUARDED_FLAGS, dir_fd=place.fileno())


def remove(shelf: Fd, name: str) -> None:
    """Delete the snapshot ``name``, which is none any more at once; raises NoSuchSnapshot."""
    open_place(shelf, name).close()
    aside = gone_name(name)
    renameat2(shelf.fileno(), name, shelf.fileno(), aside, RENAME_NOREPLACE)
    # Before its first file goes: half of a snapshot must never have the name again.
    os.fsync(shelf.fileno())
    delete_tree(shelf, aside)
