"""Extensions in a worker: open what the user shall have, merge it, tell what became of it.

Strings the rooms storage and extension together. Whatever is wrong with an
extension is told and stops nothing, unless the extension is required.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.extension import attach, find, hierarchies, image, release
from homemgr.extension.stack import Options
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.userns import create_userns
from homemgr.storage import idmapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from homemgr.extension.image import Extension
    from homemgr.extension.shelf import Shelf
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.work.task import Task


class Order(NamedTuple):
    """What the daemon wants merged: names in order, which are required, and how."""

    names: tuple[str, ...]
    required: frozenset[str]
    mode: attach.Mode
    directories: tuple[str, ...]
    policy: image.Policy
    shelf: Shelf


@dataclass
class Outcome:
    """What became of each extension; the daemon keeps it for status."""

    opened: list[Extension] = field(default_factory=list)
    #: By name: why it is not merged, or not everywhere.
    reasons: dict[str, list[str]] = field(default_factory=dict)
    #: Directories that are merged.
    merged: list[str] = field(default_factory=list)
    #: What is not in order in the home but stopped nothing.
    problems: list[str] = field(default_factory=list)
    #: How the home is shown as a whole; empty if it is itself.
    home_mode: str = ""

    def refuse(self, name: str, reason: str) -> None:
        """Note why an extension is not merged, or not everywhere."""
        self.reasons.setdefault(name, []).append(reason)

    def to_json(self, order: Order | None) -> JsonObject:
        """For the daemon: one entry for each wanted extension, and what is merged."""
        by_name = {extension.name: extension for extension in self.opened}
        names = order.names if order else ()
        return {
            "extensions": [self._entry(name, by_name.get(name)) for name in names],
            "merged": list(self.merged),
            "problems": list(self.problems),
            "home_mode": self.home_mode or "normal",
        }

    def _entry(self, name: str, extension: Extension | None) -> Json:
        merged = self.shows(extension) if extension else []
        return {
            "name": name,
            "version": extension.version if extension else "",
            "path": extension.path if extension else "",
            "state": "merged" if merged else "skipped",
            "hierarchies": list(merged),
            "reasons": list(self.reasons.get(name, [])),
        }

    def shows(self, extension: Extension) -> list[str]:
        """The directories of ``extension`` that are merged."""
        return [
            h
            for h in extension.hierarchies
            if any(h == m or h.startswith(f"{m}/") for m in self.merged)
        ]


def order_of(task: Task, argument: str = "extensions") -> Order | None:
    """What the daemon asks for; None if the user has no extensions."""
    told = task.argument(argument)
    if not isinstance(told, dict) or not told.get("names"):
        return None
    names = told["names"]
    required = told.get("required", [])
    assert isinstance(names, list)
    assert isinstance(required, list)
    return Order(
        tuple(str(name) for name in names),
        frozenset(str(name) for name in required),
        attach.Mode(str(told.get("mutability", "yes"))),
        directories_of(told),
        policy_of(told),
        task.shelf,
    )


def directories_of(told: Mapping[str, object]) -> tuple[str, ...]:
    """Where the daemon says that extensions are."""
    paths = told.get("directories", find.SEARCH_PATH)
    assert isinstance(paths, (list, tuple))
    return tuple(str(path) for path in paths)


def policy_of(told: Mapping[str, object]) -> image.Policy:
    """What the daemon says that the administrator allows."""
    return image.Policy(
        map_root=bool(told.get("maps_root", True)),
        refuse_unverifiable_signature=bool(told.get("needs_signature", True)),
    )


def local_ids(task: Task) -> tuple[int, int]:
    """Uid and gid of the user on this machine."""
    return task.local_uid, task.local_uid


def open_all(
    order: Order,
    ids: tuple[int, int],
    closing: ExitStack,
    tell: Callable[[str], None] = lambda name: None,
) -> Outcome:
    """Open every wanted extension; ``closing`` owns them. Raises only for a required one.

    ``tell`` hears of each before its turn: to compare the digest of a large image takes time.
    """
    outcome = Outcome()
    host = release.read_host()
    known = {found.name: found for found in find.pick(find.candidates(order.directories), host)}
    for name in order.names:
        found = known.get(name)
        tell(name)
        try:
            if found is None:
                raise errors.NoSuchExtension(f"There is no extension {name} on this machine.")
            if isinstance(found, find.Refused):
                raise errors.ExtensionNotUsable(found.reason)
            extension = image.open_newest(
                found,
                host=host,
                local_uid=ids[0],
                local_gid=ids[1],
                policy=order.policy,
                userns=partial(userns, ids),
                shelf=order.shelf,
            )
        except errors.HomeError as error:
            if name in order.required:
                raise
            outcome.refuse(name, error.message)
            continue
        outcome.opened.append(closing.enter_context(extension))
    return outcome


def userns(ids: tuple[int, int], disk_uid: int, disk_gid: int) -> Fd:
    """A namespace in which the owner of a layer's files is the user, and nobody else is."""
    mapping = idmapping.strict(disk_uid, ids[0], disk_gid, ids[1])
    return create_userns(mapping.uid_map, mapping.gid_map)


def options(effective: EffectiveRecord) -> Options:
    """How the overlays of this home are mounted."""
    return Options(
        nosuid=True,
        nodev=True,
        noexec=effective.mount_noexec,
    )


def wanted(outcome: Outcome, mode: attach.Mode, closing: ExitStack) -> list[attach.Wanted]:
    """The overlays to make, one for each merged directory; ``closing`` owns their layers."""
    offers = {extension.name: extension.hierarchies for extension in outcome.opened}
    paths, refused = hierarchies.within_limits(offers)
    for name, reason in refused.items():
        outcome.refuse(name, reason)
    usable = [extension for extension in outcome.opened if extension.name not in refused]
    for extension in usable:
        for entry in extension.unmergeable:
            outcome.refuse(extension.name, f"~/{entry} cannot be merged: only directories can.")
    return [attach.Wanted(p, list(layers_of(p, usable, outcome, closing)), mode) for p in paths]


def layers_of(
    path: str, usable: Sequence[Extension], outcome: Outcome, closing: ExitStack
) -> Iterator[tuple[str, Fd]]:
    """What extensions have for ``path`` of a home, for its whole if that is empty."""
    found: list[tuple[str, Fd]] = []
    for extension in usable:
        reason = hierarchies.too_deep(extension.name, extension.depth)
        layer = None if reason else _layer(extension, path)
        if reason:
            outcome.refuse(extension.name, reason)
        elif layer is not None:
            found.append((extension.name, closing.enter_context(layer)))
    reason = hierarchies.too_many_layers(f"~/{path}", len(found))
    if reason:
        for name, _ in found:
            outcome.refuse(name, reason)
        return
    yield from found


def _layer(extension: Extension, path: str) -> Fd | None:
    return extension.layer(path) if path else extension.whole()


class Merging(NamedTuple):
    """Extensions merged into a home that is about to be published."""

    #: What is to be published.
    home: Fd
    order: Order | None
    outcome: Outcome
    merged: attach.Merged | None

    def finish(self, home_directory: str) -> None:
        """Attach what an older kernel attaches only to a visible home."""
        if self.merged is None or not self.merged.waiting:
            return
        with Fd.open(home_directory, DIRECTORY_FLAGS) as home:
            attach.attach_waiting(home, self.merged)
        self.outcome.merged = list(self.merged.merged)

    def report(self) -> JsonObject | None:
        """For the daemon; None if the home is itself, without extensions."""
        if self.order is None and not self.outcome.home_mode:
            return None
        return self.outcome.to_json(self.order)


def merge_into(task: Task, home: Fd, effective: EffectiveRecord, closing: ExitStack) -> Merging:
    """Merge what the daemon asks for into the detached ``home``.

    ``closing`` owns what must stay open until the home is published. Raises only if a
    required extension cannot be merged.
    """
    order = order_of(task)
    if order is None:
        return Merging(home, None, Outcome(), None)
    outcome = open_all(order, local_ids(task), closing)
    overlays = wanted(outcome, order.mode, closing)
    merged = attach.merge(home, overlays, options(effective))
    outcome.merged = [*merged.merged, *(waiting.hierarchy for waiting in merged.waiting)]
    outcome.problems = list(merged.problems)
    _blame(outcome, overlays, merged.skipped)
    require(order, outcome)
    return Merging(home, order, outcome, merged)


def require(order: Order, outcome: Outcome) -> None:
    """Raise ExtensionNotUsable unless every required extension is merged somewhere."""
    names = {extension.name for extension in outcome.opened if outcome.shows(extension)}
    for name in order.names:
        if name in order.required and name not in names:
            reasons = outcome.reasons.get(name, ["it has nothing to merge"])
            raise errors.ExtensionNotUsable(
                f"Extension {name} is required and could not be merged: {reasons[0]}"
            )


def _blame(outcome: Outcome, overlays: Sequence[attach.Wanted], skipped: Mapping[str, str]) -> None:
    """Tell every extension of a directory that could not be merged."""
    for overlay in overlays:
        if overlay.hierarchy in skipped:
            for name, _ in overlay.layers:
                reason = f"~/{overlay.hierarchy} is not merged: {skipped[overlay.hierarchy]}"
                outcome.refuse(name, reason)
