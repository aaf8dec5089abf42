"""Verb deactivate: unmount the home area; busy means that nothing was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import attach, clean, home_side
from homemgr.storage import mountpoint
from homemgr.work import inside

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Unmount; raises HomeBusy naming who holds it."""
    mountpoint.take_away(task.effective.home_directory)
    return {"problems": list(_clean(task))}


def _clean(task: Task) -> list[str]:
    """Take the traces of extensions out of the home; what cannot be is told, not raised."""
    try:
        with inside.open_top(task) as top:
            return clean.clean(top.fd).problems if home_side.is_used(top.fd) else []
    except (errors.HomeError, OSError) as error:
        return [attach.reason_of(error)]
