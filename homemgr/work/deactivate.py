"""Verb deactivate: unmount the home area; busy means that nothing was changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import attach, clean, home_side
from homemgr.storage import mountpoint
from homemgr.work import inside

if TYPE_CHECKING:
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def run(task: Task) -> dict[str, object]:
    """Unmount; raises HomeBusy naming who holds it."""
    mountpoint.take_away(task.effective.home_directory)
    _clean(task)
    return {}


def _clean(task: Task) -> None:
    """Take the traces of extensions out of the home.

    What cannot be taken out is logged: the user is gone, and the next merge tries again.
    """
    try:
        with inside.open_top(task) as top:
            if not home_side.is_used(top.fd):
                return
            problems = clean.clean(top.fd).problems
    except (errors.HomeError, OSError) as error:
        problems = [attach.reason_of(error)]
    for problem in problems:
        log.warning("Home area %s: %s", task.record.name, problem)
