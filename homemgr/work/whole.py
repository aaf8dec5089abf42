"""Homes shown as a whole in a worker: ephemeral or read-only, in one overlay with extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import attach, whole
from homemgr.extension.stack import Options
from homemgr.extension.whole import WholeMode
from homemgr.work import extensions
from homemgr.work.cleaning import MergedLayers
from homemgr.work.extensions import Merging

if TYPE_CHECKING:
    from contextlib import ExitStack

    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.work.task import Task

#: The word for a home that is itself.
NORMAL = "normal"


def mode_for(task: Task, effective: EffectiveRecord) -> WholeMode | None:
    """How the home is to be shown: what the caller asks for, or what its record says.

    AccessDenied if the caller asks for another than a record that wants one: it would
    be of no use if everybody with the password could lift it.
    """
    asked, said = task.argument("home_mode"), effective.home_mode
    if asked and asked != said and said != NORMAL:
        raise errors.AccessDenied(
            f"The record of {effective.name} says that the home is {said}; asked for was {asked}."
        )
    mode = str(asked or said)
    return None if mode == NORMAL else WholeMode(mode)


def merge(
    task: Task, home: Fd, effective: EffectiveRecord, mode: WholeMode, closing: ExitStack
) -> Merging:
    """The overlay to publish in the place of the detached ``home``; ``closing`` owns it.

    Raises if a required extension cannot be merged, or the overlay not be made.
    """
    with MergedLayers(task) as merged_before:
        problems = attach.clean_leftovers(home, merged_before)
    order = extensions.order_of(task)
    outcome = extensions.Outcome()
    if order is not None:
        outcome = extensions.open_all(order, extensions.local_ids(task), closing)
    outcome.problems = problems
    layers = list(extensions.layers_of("", outcome.opened, outcome, closing))
    overlay = closing.enter_context(whole.merge_whole(home, layers, mode, _options(effective)))
    outcome.home_mode = mode.value
    merged = {name for name, _ in layers}
    outcome.merged = sorted(
        {h for one in outcome.opened if one.name in merged for h in one.hierarchies}
    )
    if order is not None:
        extensions.require(order, outcome)
    return Merging(overlay, order, outcome, None)


def _options(effective: EffectiveRecord) -> Options:
    """As the home itself would be mounted."""
    return Options(
        nosuid=effective.mount_nosuid,
        nodev=effective.mount_nodev,
        noexec=effective.mount_noexec,
    )
