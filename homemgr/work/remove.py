"""Verb remove, in two steps: out of sight at once, then the deletion that takes its time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record.names import stays
from homemgr.storage import hidden, inner, mountpoint, paths, snapshot_shelf

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Carry out the step the daemon names; the record is dropped between the two.

    What lies on a file server or a device stays there: it may be somebody's only copy.
    """
    if task.text("step") == "set-aside":
        # A worker that was killed may have left a mount, which would hold the image for ever.
        hidden.take_away(inner.name_of(task.image))
    if stays(task.image_path):
        if task.text("step") != "set-aside":
            mountpoint.discard(task.effective.home_directory)
        return {}
    file_name = os.path.basename(task.image_path)
    try:
        parent = paths.open_safe_parent(task.image_path)
    except errors.FileNotFound:
        # Nothing left of it, base directory included: an absent home is being forgotten.
        return {}
    with parent:
        if task.text("step") == "set-aside":
            task.storage.set_aside(parent, file_name)
            # What was removed must not come back, nor be there for who has the name next.
            snapshot_shelf.set_aside(parent, task.record.name)
            return {}
        mountpoint.discard(task.effective.home_directory)
        task.storage.delete_aside(parent, file_name)
        snapshot_shelf.sweep_aside(parent, task.record.name)
    return {}
