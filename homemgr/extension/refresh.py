"""Change what is merged into a home that is in use: the new overlay goes beneath the old.

Then the old one is taken off, so that there is no moment without either. Two overlays
that write into one directory are undefined: while somebody holds a writable one, the
change is put off and the holders are named. A failure keeps the old overlay.
"""

from __future__ import annotations

import enum
import errno
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeError, HostileHome
from homemgr.extension import clean, home_side
from homemgr.extension.attach import Mode, Wanted, attach, build, open_target, reason_of
from homemgr.extension.home_side import Generation
from homemgr.extension.memory import NOTHING
from homemgr.extension.stack import SOURCE
from homemgr.kernel.holders import Holder, Target, find_holders
from homemgr.kernel.mountinfo import file_systems, submounts
from homemgr.kernel.mounts import (
    MNT_DETACH,
    MNT_EXPIRE,
    MOVE_MOUNT_BENEATH,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    UMOUNT_NOFOLLOW,
    mount_setattr,
    open_tree,
    umount2,
)
from homemgr.kernel.statx import place
from homemgr.kernel.syscall import AT_EMPTY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from homemgr.extension.clean import LayersOf
    from homemgr.extension.stack import Options
    from homemgr.files import Fd

#: Pauses between attempts while an overlay is busy: most are so for one short look.
_PAUSES_S = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08)

_MODES = frozenset(mode.value for mode in Mode)

#: How long we may look for who holds an overlay.
_SEARCH_S = 1.0


class State(enum.Enum):
    """What became of the wish to change one merged directory."""

    APPLIED = "applied"
    DEFERRED = "deferred"
    FAILED = "failed"


class Outcome(NamedTuple):
    """The answer for one merged directory; the reason is empty if the change applies."""

    hierarchy: str
    state: State
    reason: str = ""
    holders: Sequence[Holder] = ()


class Mounted(NamedTuple):
    """An overlay of ours that is seen in the home now."""

    mount_id: int
    generation: str
    mode: Mode


class _Held(Exception):
    """The old overlay cannot be taken off now."""

    def __init__(self, reason: str, holders: Sequence[Holder] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.holders = holders


def mounted_overlays(root: Fd) -> dict[str, Mounted]:
    """Our overlays in the visible home, of which ``root`` is the top, by merged directory."""
    found: dict[str, Mounted] = {}
    for hierarchy, mounted in _all_overlays(root):
        # Those on top of others come first, and only they are seen.
        found.setdefault(hierarchy, mounted)
    return found


def _all_overlays(root: Fd) -> list[tuple[str, Mounted]]:
    kinds = file_systems()
    found: list[tuple[str, Mounted]] = []
    for mount in submounts(root.fileno()):
        kind, source = kinds.get(mount.mount_id, ("", ""))
        name, _, label = source.partition("/")
        generation, _, mode = label.partition("/")
        if (kind, name) == ("overlay", SOURCE) and mode in _MODES:
            found.append((mount.mount_point, Mounted(mount.mount_id, generation, Mode(mode))))
    return found


def plain_view(root: Fd) -> Fd:
    """The home without anything that is mounted in it, as a detached mount."""
    plain = open_tree(root.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
    # Else it would get what is mounted in the home from now on.
    mount_setattr(plain.fileno(), "", AT_EMPTY_PATH, propagation=MS_PRIVATE)
    return plain


def refresh(
    root: Fd,
    wanted: Sequence[Wanted],
    options: Options,
    *,
    is_forced: bool = False,
    merged: LayersOf = clean.no_layers,
    tell: Callable[[str], None] = lambda hierarchy: None,
) -> list[Outcome]:
    """Make ``wanted`` what is merged into the visible home, of which ``root`` is the top.

    With ``is_forced`` also where somebody holds the old overlay: who does sees the old
    files, and what they write may be lost. ``merged`` gives what is merged so far, as
    `clean.clean` wants it; ``tell`` hears of each directory before its turn.
    """
    with plain_view(root) as plain:
        change = _Change(root, plain, options, merged, is_forced=is_forced, tell=tell)
        outcomes = change.take_off_all_but({one.hierarchy for one in wanted})
        outcomes += change.put_on_all(wanted)
        change.drop_generations()
        return outcomes


class _Change:
    """One refresh: the visible home, its plain view, and what to do about holders."""

    def __init__(
        self,
        root: Fd,
        plain: Fd,
        options: Options,
        merged: LayersOf,
        *,
        is_forced: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._root = root
        self._plain = plain
        self._options = options
        self._is_forced = is_forced
        self._merged = merged
        self._tell = tell
        #: Generations of which something is still used, though no longer seen.
        self._detached: set[str] = set()

    def take_off_all_but(self, kept: Collection[str]) -> list[Outcome]:
        """Take off every overlay but those at ``kept``."""
        overlays = mounted_overlays(self._root)
        return [
            self._attempt(hierarchy, partial(self._take_off, hierarchy, old))
            for hierarchy, old in overlays.items()
            if hierarchy not in kept
        ]

    def put_on_all(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Put the new overlays on."""
        if not wanted:
            return []
        try:
            generation = Generation.begin(self._plain)
        except (HomeError, OSError) as error:
            reason = reason_of(error)
            return [Outcome(one.hierarchy, State.FAILED, reason) for one in wanted]
        with generation:
            return [
                self._attempt(one.hierarchy, partial(self._put_on, generation, one))
                for one in wanted
            ]

    def _attempt(self, hierarchy: str, step: Callable[[], None]) -> Outcome:
        self._tell(hierarchy)
        try:
            step()
        except _Held as held:
            return Outcome(hierarchy, State.DEFERRED, held.reason, held.holders)
        except (HomeError, OSError) as error:
            return Outcome(hierarchy, State.FAILED, reason_of(error))
        return Outcome(hierarchy, State.APPLIED)

    def _take_off(self, hierarchy: str, old: Mounted) -> None:
        self._require_free(hierarchy, old)
        self._unmount(hierarchy, old)
        clean.clean_one(self._plain, hierarchy, self._merged)

    def _put_on(self, generation: Generation, one: Wanted) -> None:
        overlays = mounted_overlays(self._root)
        for other in overlays:
            if _is_below(other, one.hierarchy) or _is_below(one.hierarchy, other):
                raise _Held(f"~/{other} is still merged by itself.")
        old = overlays.get(one.hierarchy)
        if old is not None:
            self._require_free(one.hierarchy, old)
        known = clean.remember(
            self._plain, [one.hierarchy], lambda path: self._merged(path) or one.layers, []
        )
        remembered = known.get(one.hierarchy, NOTHING)
        with build(self._plain, generation, one, remembered, self._options) as mount:
            if old is None:
                attach(self._root, one.hierarchy, mount)
            else:
                self._swap(one, old, mount)

    def _swap(self, one: Wanted, old: Mounted, mount: Fd) -> None:
        attach(self._root, one.hierarchy, mount, MOVE_MOUNT_BENEATH)
        # Nobody can reach the new overlay before the old one is off: should that fail, it
        # stays where it is until then, and does no harm.
        self._unmount(one.hierarchy, old)

    def _require_free(self, hierarchy: str, old: Mounted) -> None:
        if not self._is_on_top(hierarchy, old):
            raise _Held("Something else is mounted on it.")
        if old.mode.is_read_only or self._is_forced:
            return
        if old.mode is not Mode.WRITABLE:
            raise _Held("What was written there since login would be lost.")
        for pause_s in (*_PAUSES_S, 0.0):
            if self._is_idle(hierarchy, old):
                return
            time.sleep(pause_s)
        raise self._held(hierarchy, old)

    def _is_idle(self, hierarchy: str, old: Mounted) -> bool:
        """Whether nobody but the tree of mounts uses the overlay, exactly as the kernel counts."""
        # Twice in a row would unmount it, but not if it was looked at in between.
        open_target(self._root, hierarchy).close()
        try:
            self._umount(hierarchy, old, MNT_EXPIRE)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):
                raise
            open_target(self._root, hierarchy).close()
            return error.errno == errno.EAGAIN
        raise OSError(errno.EBUSY, "somebody else takes overlays off", hierarchy)

    def _unmount(self, hierarchy: str, old: Mounted) -> None:
        pauses_s = () if old.mode.is_read_only else _PAUSES_S
        for pause_s in (0.0, *pauses_s):
            time.sleep(pause_s)
            try:
                return self._umount(hierarchy, old, 0)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
        if not old.mode.is_read_only and not self._is_forced:
            raise self._held(hierarchy, old)
        # Who holds it goes on with it until they let go; who looks for files finds the new one.
        self._detached.add(old.generation)
        return self._umount(hierarchy, old, MNT_DETACH)

    def _is_on_top(self, hierarchy: str, old: Mounted) -> bool:
        with open_target(self._root, hierarchy) as top:
            return place(top.fileno()).mount_id == old.mount_id

    def _umount(self, hierarchy: str, old: Mounted, flags: int) -> None:
        above, name = os.path.split(hierarchy)
        with open_target(self._root, above) as parent:
            # Else the user could have us take off what is none of our business.
            if place(parent.fileno(), name).mount_id != old.mount_id:
                raise OSError(errno.EAGAIN, "something was mounted on it meanwhile", hierarchy)
            umount2(f"/proc/self/fd/{parent.fileno()}/{name}", UMOUNT_NOFOLLOW | flags)

    def _held(self, hierarchy: str, old: Mounted) -> _Held:
        where = os.path.join(os.readlink(f"/proc/self/fd/{self._root.fileno()}"), hierarchy)
        with open_target(self._root, hierarchy) as top:
            device = place(top.fileno()).device
        target = Target(frozenset({old.mount_id}), device, where)
        found = find_holders(target, limit_s=_SEARCH_S)
        return _Held(f"~/{hierarchy} is in use and can be written to.", found)

    def drop_generations(self) -> None:
        """Delete the work directories of overlays that are gone."""
        used = {mounted.generation for _, mounted in _all_overlays(self._root)}
        # Not in order or not to be deleted: the cleaning after the session tells.
        with suppress(HostileHome, OSError):
            for name in home_side.generations(self._plain):
                if name not in used | self._detached:
                    home_side.drop_generation(self._plain, name)


def _is_below(path: str, other: str) -> bool:
    return path.startswith(f"{other}/")
