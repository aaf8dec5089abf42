"""Verbs settle, lock and unlock: the key of a home that has one, in memory or out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.storage import mountpoint
from homemgr.work import activate, inside

if TYPE_CHECKING:
    from homemgr.work.task import Task


def settle(task: Task) -> dict[str, object]:
    """Close a home that is not in use, as its key may have stayed; tells of one that is."""
    if mountpoint.is_active(task.effective.home_directory):
        return {"is_closed": True, "is_locked": task.storage.is_locked(task.image)}
    return {"is_closed": task.storage.close(task.image), "is_locked": False}


def lock(task: Task) -> dict[str, object]:
    """Take the key of a home in use out of memory; tells who goes on to see what he has open."""
    task.storage.lock(task.image)
    return {"users": mountpoint.users(task.effective.home_directory)}


def unlock(task: Task) -> dict[str, object]:
    """Check the credentials and put the key back; gives what activate gives."""
    opened = inside.open_home(task)
    with opened.area:
        opened.write_through_if_possible()
        opened.area.keep()
        return activate.result(task, opened)
