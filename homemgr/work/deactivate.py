"""Verb deactivate: unmount the home area; busy means that nothing was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.storage import mountpoint

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Unmount; raises HomeBusy naming who holds it."""
    mountpoint.take_away(task.effective.home_directory)
    return {}
