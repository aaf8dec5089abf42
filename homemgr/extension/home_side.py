"""What extensions need inside a home: directories to merge into, and work directories.

The home is its user's, who may have put anything anywhere: everything is reached by
descriptor from its top, never through a link. Whatever is made here belongs to the
owner, is noted before it is made, and can be found again after a crash by the notes.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HostileHome, InvalidArgs, from_os_error
from homemgr.extension import visit
from homemgr.extension.stack import Owner
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import openat2
from homemgr.kernel.statx import birth_time_ns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType

#: Ours inside a home, and in there the work directories by generation.
OURS = ".homemgr"
WORK = "work"

_RANDOM_BYTES = 6
_GENERATION = re.compile(r"[0-9a-f]{12}\Z")

#: A note is a symbolic link to the path of the merged directory. Its name has the number
#: of the work directory, and how many components of the path were there before.
_NOTE = re.compile(r"([0-9]{1,3})-([0-9]{1,4})\Z")

#: Longest path that can be opened in one step, with room to spare.
PATH_LIMIT = 4000
_NAME_LIMIT = 255

#: How many generations, and notes of one, are looked at: more were not made by us.
_MOST = 256

#: Somebody renames directories meanwhile: the kernel cannot tell where `..` leads.
_TRIES = 8

_HOSTILE = (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EEXIST, errno.EACCES, errno.EPERM)


class Note(NamedTuple):
    """A directory that is or was merged; ``existing`` components of it are the user's own."""

    hierarchy: str
    existing: int


class Spot(NamedTuple):
    """Where one overlay goes: the home's own directory, and one to work in."""

    directory: Fd
    work: Fd | None


def check_path(path: str) -> str:
    """``path``, if it is relative, has no detours and is not too long."""
    first = path.split("/", 1)[0]
    if path != os.path.normpath(path) or first in ("", ".", ".."):
        raise InvalidArgs(f"{path[:100]!r} is not a relative path without '.' and '..'.")
    names = os.fsencode(path).split(b"/")
    is_long = len(os.fsencode(path)) > PATH_LIMIT or any(len(name) > _NAME_LIMIT for name in names)
    if is_long or "\0" in path:
        raise InvalidArgs(f"{path[:100]!r} is longer than a path can be, or has such a name in it.")
    return path


def open_directory(home: Fd, path: str) -> Fd | None:
    """The directory ``path`` of the home; None if there is nothing, `HostileHome` if no directory.

    An empty path is the top itself, opened so that it can be listed.
    """
    for _ in range(_TRIES):
        try:
            return openat2(home.fileno(), path or ".", DIRECTORY_FLAGS, visit.RESOLVE_GUARDED)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _HOSTILE:
                raise _hostile(path, error) from error
            if error.errno != errno.EAGAIN:
                raise
    raise HostileHome(f"~/{path} is being moved around.")


def _hostile(path: str, error: OSError) -> HostileHome:
    text = os.strerror(error.errno or errno.EIO)
    return HostileHome(f"~/{path} must be a directory of this home: {text}.")


def ensure_directory(home: Fd, path: str, mode: int) -> Fd:
    """The directory ``path`` of the home, made as its owner where it is missing."""
    owner = Owner.of(home)
    current = _require(home, "")
    done = ""
    for name in path.split("/"):
        done = f"{done}/{name}".lstrip("/")
        with current:
            try:
                with suppress(FileExistsError), filesystem_identity(*owner):
                    os.mkdir(name, mode, dir_fd=current.fileno())
            except OSError as error:
                raise from_os_error(error, f"Cannot make ~/{done}") from error
            current = _require(current, name, done)
    return current


def _require(directory: Fd, name: str, shown: str = "") -> Fd:
    found = open_directory(directory, name)
    if found is None:
        raise HostileHome(f"~/{shown or name} is being removed.")
    return found


def existing_components(home: Fd, path: str, made: Collection[str] = ()) -> int:
    """How many components of ``path`` are directories of the home already, and not ``made``."""
    prefixes = _prefixes(path)
    for count, prefix in enumerate(prefixes):
        if prefix in made:
            return count
        found = open_directory(home, prefix)
        if found is None:
            return count
        found.close()
    return len(prefixes)


def _prefixes(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[: count + 1]) for count in range(len(names))]


def created_by(notes: Iterable[Note]) -> set[str]:
    """All directories that were made for overlays."""
    return {path for note in notes for path in _prefixes(note.hierarchy)[note.existing :]}


class Generation:
    """The work directories of one set of overlays that are mounted together.

    Owns its directory in the home until the end of its ``with`` block; on disk it stays
    until the home is cleaned.
    """

    def __init__(self, home: Fd, name: str, directory: Fd) -> None:
        """Take over ``directory``; ``home`` stays the caller's and must stay open."""
        self.name = name
        self._home = home
        self._owner = Owner.of(home)
        self._directory = directory
        self._count = 0

    @classmethod
    def begin(cls, home: Fd) -> Generation:
        """Make the directory of a new generation."""
        # A fresh one each time: two overlays in one work directory destroy each other's files.
        name = os.urandom(_RANDOM_BYTES).hex()
        return cls(home, name, ensure_directory(home, f"{OURS}/{WORK}/{name}", 0o700))

    def place(self, hierarchy: str, *, mode: int = 0o755, is_writable: bool) -> Spot:
        """Open the home's directory for ``hierarchy``, made if missing, and a work directory."""
        check_path(hierarchy)
        number, self._count = self._count, self._count + 1
        # What we made for another one, or in an earlier generation, still is ours.
        made = created_by(read_notes(self._home))
        existing = existing_components(self._home, hierarchy, made)
        with ExitStack() as undo:
            with filesystem_identity(*self._owner):
                os.symlink(hierarchy, f"{number}-{existing}", dir_fd=self._directory.fileno())
            directory = ensure_directory(self._home, hierarchy, mode)
            undo.callback(directory.close)
            self._require_own(directory, hierarchy)
            work = ensure_directory(self._directory, str(number), 0o700) if is_writable else None
            undo.pop_all()
        return Spot(directory, work)

    def _require_own(self, directory: Fd, hierarchy: str) -> None:
        found = Owner.of(directory)
        if found.uid != self._owner.uid:
            raise HostileHome(
                f"~/{hierarchy} belongs to uid {found.uid}; expected {self._owner.uid}."
            )

    def close(self) -> None:
        """Let go of the directory."""
        self._directory.close()

    def __enter__(self) -> Generation:
        """Own until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go, whatever happened."""
        self.close()


def generations(home: Fd) -> list[str]:
    """The generations that left something in the home; empty once it is clean."""
    work = open_directory(home, f"{OURS}/{WORK}")
    if work is None:
        return []
    with work:
        names = [entry.name for entry in visit.list_entries(work.fileno())]
    return sorted(name for name in names if _GENERATION.match(name))[:_MOST]


def is_used(home: Fd) -> bool:
    """Whether the home still has something of a session that merged extensions."""
    work = open_directory(home, f"{OURS}/{WORK}")
    if work is not None:
        work.close()
    return work is not None


def began_ns(home: Fd) -> int | None:
    """When the session began to merge; None if it did not, or nobody knows."""
    work = open_directory(home, f"{OURS}/{WORK}")
    if work is None:
        return None
    with work:
        return birth_time_ns(work.fileno())


def read_notes(home: Fd) -> list[Note]:
    """All merged directories of all generations; what the user may have forged is harmless."""
    notes: list[Note] = []
    for name in generations(home):
        with suppress(HostileHome):
            notes += _notes_of(home, name)
    return notes


def _notes_of(home: Fd, name: str) -> list[Note]:
    directory = open_directory(home, f"{OURS}/{WORK}/{name}")
    if directory is None:
        return []
    with directory:
        return _notes_in(directory)


def _notes_in(directory: Fd) -> list[Note]:
    notes: list[Note] = []
    for entry in visit.list_entries(directory.fileno())[: 4 * _MOST]:
        found = _NOTE.match(entry.name)
        if found is None:
            continue
        # No link any more, or a path we would never have written.
        with suppress(OSError, InvalidArgs):
            path = check_path(os.readlink(entry.name, dir_fd=directory.fileno()))
            notes.append(Note(path, int(found[2])))
    return notes


def drop_generation(home: Fd, name: str) -> None:
    """Delete the work directories of a generation that is no longer mounted."""
    work = open_directory(home, f"{OURS}/{WORK}")
    if work is not None:
        with work:
            visit.delete(work, name)


def drop_created(home: Fd, notes: Iterable[Note]) -> None:
    """Remove the directories that were made for overlays, as far as they are empty."""
    # Each after all that is below it.
    for path in sorted(created_by(notes), reverse=True):
        above, name = os.path.split(path)
        with suppress(HostileHome):
            _remove_empty(home, above, name)


def _remove_empty(home: Fd, above: str, name: str) -> None:
    parent = open_directory(home, above)
    if parent is not None:
        with parent:
            visit.remove_empty(parent.fileno(), name)


def drop_work(home: Fd) -> None:
    """Delete all work directories, and our directory if nothing else is in it."""
    with suppress(HostileHome):
        ours = open_directory(home, OURS)
        if ours is None:
            return
        with ours:
            visit.delete(ours, WORK)
        visit.remove_empty(home.fileno(), OURS)
