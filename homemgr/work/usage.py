"""Verb usage: what a home takes of its disk. Looks only, and keeps nobody from the home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.storage import usage
from homemgr.storage.kinds import storage_named

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Bytes by name, see `storage.usage.Usage`; raises HomeAbsent, HostileHome, HomeBusy."""
    path = task.text("image_path")
    if storage_named(task.text("storage")).image_is_file:
        mounted = task.text("home_directory") if task.argument("is_active") else None
        found = usage.of_image(path, mounted)
    else:
        counts_files = bool(task.argument("counts_files"))
        found = usage.of_directory(path, counts_files=counts_files)
    return {
        "logical": found.logical,
        "physical": found.physical,
        "reclaimable": found.reclaimable,
        "counted_by": found.counted_by,
    }
