"""What a user has of their own where extensions have something too: list it, drop it.

Works on a plain view of the home, mounted or not. What is dropped shows the extension's
file again from the next merge on.
"""

from __future__ import annotations

import enum
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.extension import home_side, marks, memory, visit
from homemgr.extension.memory import NOTHING, Remembered
from homemgr.kernel.openat2 import openat2

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from homemgr.files import Fd

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Kind(enum.Enum):
    """How the user's home differs from an extension at one path."""

    DELETED = "deleted"
    REPLACED = "replaced"
    CHANGED = "changed"


class Difference(NamedTuple):
    """One path, relative to the merged directory; ``extension`` is empty if none has it now."""

    hierarchy: str
    path: str
    kind: Kind
    extension: str


def differences(home: Fd, layers: Mapping[str, Sequence[tuple[str, Fd]]]) -> list[Difference]:
    """All differences of ``home`` from ``layers``, and what is remembered of other extensions."""
    known = memory.read(home)
    found: list[Difference] = []
    for hierarchy in sorted(layers.keys() | known.keys()):
        below = layers.get(hierarchy, ())
        marked, own = _own_side(home, hierarchy, below)
        remembered = known.get(hierarchy, NOTHING)
        opaque = remembered.opaque | marks.shown(below, marked.opaque)
        found += _listed(hierarchy, remembered.deleted | marked.deleted, Kind.DELETED, below)
        found += _listed(hierarchy, opaque, Kind.REPLACED, below)
        found += _listed(hierarchy, own - opaque, Kind.CHANGED, below)
    return found


def _listed(
    hierarchy: str, paths: Collection[str], kind: Kind, layers: Sequence[tuple[str, Fd]]
) -> list[Difference]:
    return [
        Difference(hierarchy, path, kind, (marks.first_with(layers, path) or ("", 0))[0])
        for path in sorted(paths)
    ]


def _own_side(
    home: Fd, hierarchy: str, layers: Sequence[tuple[str, Fd]]
) -> tuple[Remembered, set[str]]:
    """The marks of a session that goes on, and the user's files that hide an extension's."""
    directory = home_side.open_directory(home, hierarchy)
    if directory is None:
        return NOTHING, set()
    with directory:
        return marks.scan(directory), _hiding(directory, layers)


def _hiding(directory: Fd, layers: Sequence[tuple[str, Fd]]) -> set[str]:
    found: set[str] = set()

    def enter(path: Sequence[str], fd: int) -> list[str]:
        below: list[str] = []
        for entry in visit.list_entries(fd):
            here = "/".join((*path, entry.name))
            theirs = _kinds(layers, here)
            if entry.is_directory and stat.S_IFDIR in theirs:
                below.append(entry.name)
            elif theirs and not marks.is_whiteout(fd, entry.name):
                found.add(here)
        return below

    visit.visit(directory, enter)
    return found


def _kinds(layers: Sequence[tuple[str, Fd]], path: str) -> set[int]:
    kinds: set[int] = set()
    for _, directory in layers:
        with (
            suppress(OSError),
            openat2(directory.fileno(), path, _LOOK, visit.RESOLVE_GUARDED) as found,
        ):
            kinds.add(stat.S_IFMT(os.fstat(found.fileno()).st_mode))
    return kinds


def discard(
    home: Fd,
    layers: Mapping[str, Sequence[tuple[str, Fd]]],
    chosen: Collection[tuple[str, str]] | None = None,
    *,
    has_changed: bool = False,
) -> list[Difference]:
    """Drop differences: all, or those at ``chosen`` (merged directory, path); those dropped.

    The user's own copies go only with ``has_changed``, and directories never. In a home
    that is in use a refresh must follow.
    """
    dropped = [
        one
        for one in differences(home, layers)
        if (chosen is None or one[:2] in chosen) and (has_changed or one.kind is not Kind.CHANGED)
    ]
    known = dict(memory.read(home))
    for hierarchy in sorted({one.hierarchy for one in dropped}):
        mine = [one for one in dropped if one.hierarchy == hierarchy]
        hidden = {one.path for one in mine if one.kind is not Kind.CHANGED}
        entry = known.get(hierarchy, NOTHING)
        known[hierarchy] = Remembered(entry.deleted - hidden, entry.opaque - hidden)
        _drop_own(home, hierarchy, hidden, [one.path for one in mine if one.kind is Kind.CHANGED])
    memory.write(home, known)
    return dropped


def _drop_own(home: Fd, hierarchy: str, hidden: Collection[str], copies: Sequence[str]) -> None:
    directory = home_side.open_directory(home, hierarchy)
    if directory is None:
        return
    with directory:
        marks.remove_whiteouts(directory, hidden)
        for path in hidden:
            marks.make_transparent(directory, path)
        for path in copies:
            _unlink(directory, path)


def _unlink(directory: Fd, path: str) -> None:
    above, name = os.path.split(path)
    parent = home_side.open_directory(directory, above)
    if parent is not None:
        with parent, suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=parent.fileno())
