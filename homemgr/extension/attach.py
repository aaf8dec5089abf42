"""Merge extensions into a home at login: one overlay for each directory they share with it.

Built from descriptors and attached to the home's mount before anybody sees that. What
fails is left out with a reason; the home comes up all the same.
"""

from __future__ import annotations

import enum
import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeError, from_os_error
from homemgr.extension import clean, home_side, memory, stack
from homemgr.extension.home_side import Generation
from homemgr.extension.marks import Hiding
from homemgr.extension.memory import NOTHING, Remembered
from homemgr.extension.stack import Layer, Options, Owner, Upper
from homemgr.kernel.mounts import MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, move_mount
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homemgr.extension.clean import LayersOf
    from homemgr.files import Fd

#: How messages call the home's own directory.
OWN = "the home's own directory"

#: A mount point: found again even if something is mounted there by now.
_TARGET = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Mode(enum.Enum):
    """What happens to what is written into a merged directory, as in systemd-sysext(8).

    Where nothing of the user's is imported, an extension's file is seen instead of his of the
    same name, and what he deleted earlier is there.
    """

    READ_ONLY = "no"
    WRITABLE = "yes"
    EPHEMERAL = "ephemeral"
    IMPORT = "import"
    EPHEMERAL_IMPORT = "ephemeral-import"

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written."""
        return self in (Mode.READ_ONLY, Mode.IMPORT)

    @property
    def is_imported(self) -> bool:
        """Whether what the user wrote and deleted counts more than the extensions."""
        return self not in (Mode.READ_ONLY, Mode.EPHEMERAL)


class Wanted(NamedTuple):
    """One directory to merge into; of the layers the first one wins."""

    hierarchy: str
    layers: Sequence[tuple[str, Fd]]
    mode: Mode = Mode.WRITABLE


class Waiting(NamedTuple):
    """An overlay that this kernel attaches to a visible home only."""

    hierarchy: str
    mount: Fd


class Merged(NamedTuple):
    """What became of the wanted overlays."""

    merged: list[str]
    #: By merged directory, why it was left out.
    skipped: dict[str, str]
    #: To be given to `attach_waiting` after the home was published.
    waiting: list[Waiting]
    #: What is not in order in the home, but stopped nothing.
    problems: list[str]


def merge(home: Fd, wanted: Sequence[Wanted], options: Options) -> Merged:
    """Attach overlays to the detached mount ``home``; never fails for what is in the home."""
    result = Merged([], {}, [], [])
    if not wanted:
        return result
    layers = {one.hierarchy: one.layers for one in wanted}
    result.problems.extend(clean_leftovers(home, lambda hierarchy: layers.get(hierarchy, ())))
    remembered = recall(home, result.problems)
    try:
        generation = Generation.begin(home)
    except (HomeError, OSError) as error:
        reason = reason_of(error)
        result.skipped.update((one.hierarchy, reason) for one in wanted)
        return result
    with generation:
        for one in wanted:
            try:
                _merge_one(home, generation, one, remembered, options, result)
            except (HomeError, OSError) as error:
                result.skipped[one.hierarchy] = reason_of(error)
    return result


def clean_leftovers(home: Fd, layers: LayersOf) -> list[str]:
    """Clean after a session that ended with the power; what is not in order in the home."""
    try:
        return clean.clean(home, layers).problems if home_side.is_used(home) else []
    except (HomeError, OSError) as error:
        return [reason_of(error)]


def recall(home: Fd, problems: list[str]) -> Mapping[str, Remembered]:
    """What the home remembers; nothing, and a problem more, if its file is not in order."""
    try:
        return memory.read(home)
    except (HomeError, OSError) as error:
        problems.append(reason_of(error))
        return {}


def reason_of(error: HomeError | OSError) -> str:
    """The failure in words for who asks why something is not merged."""
    return (from_os_error(error, "It failed") if isinstance(error, OSError) else error).message


def _merge_one(
    home: Fd,
    generation: Generation,
    one: Wanted,
    remembered: Mapping[str, Remembered],
    options: Options,
    result: Merged,
) -> None:
    mount = build(home, generation, one, remembered.get(one.hierarchy, NOTHING), options)
    with ExitStack() as undo:
        undo.callback(mount.close)
        try:
            attach(home, one.hierarchy, mount)
        except OSError as error:
            # Before Linux 6.15 nothing can be attached to a mount that is not attached itself.
            if error.errno != errno.EINVAL:
                raise
            result.waiting.append(Waiting(one.hierarchy, mount))
            undo.pop_all()
    result.merged.append(one.hierarchy)


def build(
    home: Fd, generation: Generation, one: Wanted, remembered: Remembered, options: Options
) -> Fd:
    """The overlay for one directory of ``home``, attached nowhere yet."""
    owner = Owner.of(home)
    is_writable = one.mode is Mode.WRITABLE
    source = f"/{generation.name}/{one.mode.value}"
    with ExitStack() as closing:
        spot = generation.place(one.hierarchy, is_writable=is_writable)
        closing.callback(spot.directory.close)
        hidden = remembered.hidden if one.mode.is_imported else frozenset()
        hiding = closing.enter_context(Hiding(one.layers, hidden, owner))
        if spot.work is not None:
            closing.callback(spot.work.close)
            upper = Upper(spot.directory, spot.work)
            return stack.writable(hiding.layers(), upper, owner, options, source)
        own, theirs = Layer(OWN, spot.directory), hiding.layers()
        layers = [own, *theirs] if one.mode.is_imported else [*theirs, own]
        make = stack.read_only if one.mode.is_read_only else stack.ephemeral
        return make(layers, owner, options, source)


def attach(home: Fd, hierarchy: str, mount: Fd, flags: int = 0) -> None:
    """Mount ``mount`` onto ``hierarchy`` of ``home``, on top of what is there."""
    flags |= MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    with open_target(home, hierarchy) as target:
        move_mount(mount.fileno(), "", target.fileno(), "", flags)


def open_target(home: Fd, path: str) -> Fd:
    """A look at ``path`` of the home, with what is mounted on it."""
    return openat2(home.fileno(), path or ".", _TARGET, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def attach_waiting(home: Fd, result: Merged) -> None:
    """Attach what had to wait until ``home``, now the top of the visible home, was published."""
    for hierarchy, mount in result.waiting:
        with mount:
            try:
                attach(home, hierarchy, mount)
            except OSError as error:
                result.merged.remove(hierarchy)
                result.skipped[hierarchy] = reason_of(error)
    result.waiting.clear()
