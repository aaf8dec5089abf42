"""Verb deactivate: unmount the home area; busy means that nothing was changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.storage import mountpoint
from homemgr.work import cleaning

if TYPE_CHECKING:
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def run(task: Task) -> dict[str, object]:
    """Unmount; raises HomeBusy naming who holds it. Tells whether its key is out of memory."""
    mountpoint.take_away(task.effective.home_directory)
    try:
        with task.storage.open(task.image, task.words(()), is_active=True) as area:
            cleaning.clean_home(task, area.top.fd)
    except errors.HomeError as error:
        # It is unmounted: where its files went meanwhile is not for this caller.
        log.warning("Home area %s: %s", task.record.name, error)
    return {"is_closed": task.storage.close(task.image)}
