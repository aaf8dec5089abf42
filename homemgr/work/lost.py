"""Verb deactivate of a home whose disk was pulled out: nothing of it can be written any more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr.storage import lost, mountpoint

if TYPE_CHECKING:
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def run(task: Task) -> dict[str, object]:
    """Take the home away and end its user's programs in it, unless its disk still answers."""
    name = task.record.name
    if lost.is_healthy(task.image):
        log.info("The disk of home area %s is still there.", name)
        return {"is_healthy": True}
    ended = lost.take_away(task.image, task.local_uid)
    log.error(
        "The disk of home area %s was pulled out while it was in use: it is taken away, and what"
        " was not written yet is lost.%s",
        name,
        f" Ended were {mountpoint.describe(ended)}." if ended else "",
    )
    # What is left goes by itself, and nobody can read anything in it.
    return {"is_closed": True}
