"""Verb deactivate: unmount the home area; busy means that nothing was changed."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.storage import mountpoint
from homemgr.work import cleaning, fitting, lost

if TYPE_CHECKING:
    from homemgr.storage.kind import Area
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def run(task: Task) -> dict[str, object]:
    """Unmount; raises HomeBusy naming who holds it. Tells whether its key is out of memory."""
    if task.argument("is_lost"):
        return lost.run(task)
    with ExitStack() as opened:
        area = _opened(task, opened) if task.storage.goes_with_mount else None
        mountpoint.take_away(task.effective.home_directory)
        area = area or _opened(task, opened)
        if area is not None:
            _clean(task, area)
            area.tidy()
            if task.argument("shrinks"):
                fitting.shrink(task, area)
    return {"is_closed": task.storage.close(task.image)}


def _opened(task: Task, closing: ExitStack) -> Area | None:
    """The home as it lies on disk; None if it does not open, which must not keep it mounted."""
    try:
        area = task.storage.open(task.image, task.words(()), is_active=True)
    except (errors.HomeError, OSError) as error:
        # Where its files went meanwhile is not for this caller.
        log.warning("Home area %s: %s", task.record.name, error)
        return None
    return closing.enter_context(area)


def _clean(task: Task, area: Area) -> None:
    try:
        cleaning.clean_home(task, area.top.fd)
    except errors.HomeError as error:
        log.warning("Home area %s: %s", task.record.name, error)
