"""Verbs refresh, difference and discard: what is merged into a home, looked at and changed.

Works on the home in use, or on the home at rest as it lies on disk.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import difference, refresh, whole
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.record.storages import is_tree
from homemgr.storage import mountpoint
from homemgr.work import extensions
from homemgr.work.cleaning import MergedLayers

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.jsontext import Json
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Make what the daemon asks for what is merged; tells what applies now and what later."""
    order = extensions.order_of(task)
    effective = task.effective
    with ExitStack() as closing:
        root = closing.enter_context(Fd.open(effective.home_directory, DIRECTORY_FLAGS))
        if mode := whole.mode_of(root):
            return {"changes": [_change(_later(mode))]}
        if order is None:
            outcome = extensions.Outcome()
            wanted = []
        else:
            tell = _teller(task, "open", len(order.names))
            outcome = extensions.open_all(order, extensions.local_ids(task), closing, tell)
            wanted = extensions.wanted(outcome, order.mode, closing)
        kept = {one.hierarchy for one in wanted}
        total = len(kept | refresh.mounted_overlays(root).keys())
        changes = refresh.refresh(
            root,
            wanted,
            extensions.options(effective),
            is_forced=bool(task.argument("is_forced")),
            merged=closing.enter_context(MergedLayers(task)),
            tell=_teller(task, "merge", total),
        )
        outcome.merged = sorted(refresh.mounted_overlays(root))
    return {
        "extensions": outcome.to_json(order),
        "changes": [_change(change) for change in changes],
    }


def _teller(task: Task, step: str, total: int) -> Callable[[str], None]:
    """What tells the daemon of each extension or directory before its turn."""
    done = itertools.count()

    def tell(subject: str) -> None:
        task.channel.progress(
            {"step": step, "subject": subject, "done": next(done), "total": total}
        )

    return tell


def _later(mode: whole.WholeMode) -> refresh.Outcome:
    reason = f"The home is {mode.value} as a whole; what is merged changes at the next login."
    return refresh.Outcome("", refresh.State.DEFERRED, reason)


def _change(change: refresh.Outcome) -> Json:
    return {
        "hierarchy": change.hierarchy,
        "state": change.state.value,
        "reason": change.reason,
        "holders": [f"{holder.comm}[{holder.pid}]" for holder in change.holders],
    }


def differences(task: Task) -> dict[str, object]:
    """What the user deleted or changed of what extensions bring."""
    with ExitStack() as closing:
        home = closing.enter_context(_open_plain(task))
        layers = _layers(task, closing)
        found = difference.differences(home, layers)
    return {
        "differences": [
            {
                "hierarchy": one.hierarchy,
                "path": one.path,
                "kind": one.kind.value,
                "extension": one.extension,
            }
            for one in found
        ]
    }


def discard(task: Task) -> dict[str, object]:
    """Forget what the user deleted, and if asked to what he changed; of some paths or of all."""
    chosen = task.argument("chosen")
    _require_changeable(task)
    with ExitStack() as closing:
        home = closing.enter_context(_open_plain(task))
        layers = _layers(task, closing)
        paths = None
        if isinstance(chosen, list):
            known = difference.differences(home, layers)
            paths = {
                (one.hierarchy, one.path)
                for one in known
                if f"{one.hierarchy}/{one.path}" in chosen
            }
        found = difference.discard(
            home, layers, paths, has_changed=bool(task.argument("has_changed"))
        )
    return {"discarded": [f"{one.hierarchy}/{one.path}" for one in found]}


def _require_changeable(task: Task) -> None:
    """HomeBusy while an overlay shows the home as a whole: nothing below it may change then."""
    if (mode := _mode_of(task)) is not None:
        raise errors.HomeBusy(
            f"The home of {task.record.name} is {mode.value}; this can be done after the logout."
        )


def _mode_of(task: Task) -> whole.WholeMode | None:
    home_directory = task.effective.home_directory
    if not mountpoint.is_active(home_directory):
        return None
    with Fd.open(home_directory, DIRECTORY_FLAGS) as root:
        return whole.mode_of(root)


def _open_plain(task: Task) -> Fd:
    """The home without what is merged into it: under the mounts, or at rest."""
    home_directory = task.effective.home_directory
    is_active = mountpoint.is_active(home_directory)
    if is_active and _mode_of(task) is None:
        with Fd.open(home_directory, DIRECTORY_FLAGS) as root:
            return refresh.plain_view(root)
    if not (is_active or is_tree(task.effective.storage)):
        # Without a password what is in a file is not opened, whether or not it needs one.
        raise errors.HomeNotActive(
            f"Home area {task.record.name} can be looked into only while its user is logged in."
        )
    with task.open_area() as area:
        return area.top.fd.duplicate()


def _layers(task: Task, closing: ExitStack) -> dict[str, list[tuple[str, Fd]]]:
    order = extensions.order_of(task)
    if order is None:
        return {}
    outcome = extensions.open_all(order, extensions.local_ids(task), closing)
    found = extensions.wanted(outcome, order.mode, closing)
    return {one.hierarchy: list(one.layers) for one in found}
