"""Verb switch: homes and what is kept of them change their places, as the daemon has noted it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.storage import rooms, snapshot_moving, staying
from homemgr.storage.kinds import STORAGES

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Rename images, and delete rooms that hold nothing any more; may be repeated.

    Of a home that ``takes_snapshots`` along these go first, while they are found beside it.
    """
    moves = task.argument("moves")
    assert isinstance(moves, list)
    for old, new, image in moves:
        if task.argument("takes_snapshots"):
            snapshot_moving.move(old, new, task.record.name)
        rooms.move(old, new, image)
    for room in task.texts("rooms"):
        rooms.leave(room)
    return {}


def clear(task: Task) -> dict[str, object]:
    """Delete what a room holds, and it; of a home without one what is on its device."""
    if room := task.text("room"):
        rooms.clear(room, STORAGES.values())
    else:
        staying.forget(task.text("path"), task.text("image"))
    return {}
