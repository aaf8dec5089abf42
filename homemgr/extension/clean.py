"""Take out of a home what merging left in it, so that it reads the same anywhere else.

Works on the home alone, as it lies on disk or is mounted plainly, and may be repeated
after a crash at any step. What the user deleted is written down before its mark goes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeError, HostileHome
from homemgr.extension import home_side, marks, memory
from homemgr.extension.memory import NOTHING, Remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from homemgr.files import Fd

    Layers = Sequence[tuple[str, Fd]]
    #: What extensions have for a merged directory; asked only where it makes a difference.
    LayersOf = Callable[[str], Layers]


def no_layers(_hierarchy: str) -> Layers:
    """Where it is not known what had been merged."""
    return ()


class Cleaned(NamedTuple):
    """What a cleaning pass did."""

    #: The directories that had been merged.
    hierarchies: list[str]
    #: What is not in order in the home, but stopped nothing.
    problems: list[str]


def clean(home: Fd, layers: LayersOf = no_layers) -> Cleaned:
    """Clean a home in which nothing is merged any more.

    ``layers`` gives what was merged, if known: only so a directory that the user made
    in the place of an extension's is told from one that the user just made. NoDiskSpace
    if there is no room to write down what was deleted; the marks then stay.
    """
    result = Cleaned([], [])
    try:
        notes, began_ns = home_side.read_notes(home), home_side.began_ns(home)
    except HostileHome as error:
        result.problems.append(error.message)
        notes, began_ns = [], None
    result.hierarchies.extend(sorted({note.hierarchy for note in notes}))
    remember(home, result.hierarchies, layers, result.problems)
    # All of them, also after one that has to be done again.
    undone = [h for h in result.hierarchies if not _purge(home, h, began_ns, result.problems)]
    home_side.drop_created(home, notes)
    # The notes tell the next pass what is still to be done.
    if not undone:
        home_side.drop_work(home)
    return result


def remember(
    home: Fd,
    hierarchies: Sequence[str],
    layers: LayersOf,
    problems: list[str],
) -> Mapping[str, Remembered]:
    """Write down what is marked as deleted in ``hierarchies``; all that is remembered now."""
    try:
        before = memory.read(home)
    except HomeError as error:
        # Not ours to repair; what is written now replaces it.
        problems.append(error.message)
        before = {}
    after = dict(before)
    for hierarchy in hierarchies:
        found = _scan(home, hierarchy)
        replaced = marks.shown(layers(hierarchy), found.opaque) if found.opaque else frozenset()
        known = before.get(hierarchy, NOTHING)
        after[hierarchy] = Remembered(known.deleted | found.deleted, known.opaque | replaced)
    after = {path: entry for path, entry in after.items() if entry.hidden}
    if after != before:
        memory.write(home, after)
    return after


def _scan(home: Fd, hierarchy: str) -> Remembered:
    directory = _open(home, hierarchy)
    if directory is None:
        return NOTHING
    with directory:
        return marks.scan(directory)


def _purge(home: Fd, hierarchy: str, began_ns: int | None, problems: list[str]) -> bool:
    """False if somebody disturbed us and it must be done again."""
    directory = _open(home, hierarchy)
    if directory is None:
        return True
    with directory:
        try:
            problems += [f"~/{hierarchy}/{text}" for text in marks.purge(directory, began_ns)]
        except HostileHome as error:
            problems.append(error.message)
            return False
    return True


def _open(home: Fd, hierarchy: str) -> Fd | None:
    # Where the directory became something else there is nothing of ours.
    with suppress(HostileHome):
        return home_side.open_directory(home, hierarchy)
    return None


def clean_one(home: Fd, hierarchy: str, layers: LayersOf = no_layers) -> list[str]:
    """Clean one directory whose overlay was taken off while the home stays in use."""
    problems: list[str] = []
    notes = [note for note in home_side.read_notes(home) if note.hierarchy == hierarchy]
    remember(home, [hierarchy], layers, problems)
    _purge(home, hierarchy, home_side.began_ns(home), problems)
    home_side.drop_created(home, notes)
    return problems
