"""The record in a home that is about to be copied, told to the daemon: its own may be older."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.storage.embedded import read_identity

if TYPE_CHECKING:
    from homemgr.storage.top import Top
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def tell_record(task: Task, top: Top) -> None:
    """Tell what lies there; nobody uses the home. What cannot be read is as good as none."""
    try:
        text = read_identity(top)
    except HomeError as error:
        log.warning("The record in home area %s does not count: %s", task.record.name, error)
        return
    if text is not None:
        task.channel.ask("found", {"record": text.decode(errors="replace")})
