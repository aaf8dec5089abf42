"""Verb remove, in two steps: out of sight at once, then the deletion that takes its time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.storage import mountpoint, paths

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Carry out the step the daemon names; the record is dropped between the two."""
    file_name = os.path.basename(task.image_path)
    try:
        parent = paths.open_safe_parent(task.image_path)
    except errors.FileNotFound:
        # Nothing left of it, base directory included: an absent home is being forgotten.
        return {}
    with parent:
        if task.text("step") == "set-aside":
            task.storage.set_aside(parent, file_name)
            return {}
        mountpoint.discard(task.effective.home_directory)
        task.storage.delete_aside(parent, file_name)
    return {}
