"""Verb sweep: delete what operations left that were killed half way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage.kinds import storage_named

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Delete leftovers in the given directories; tells which images' removal was cut short."""
    removed: list[str] = []
    for path in task.texts("directories"):
        try:
            parent = Fd(os.open(path, DIRECTORY_FLAGS))
        except FileNotFoundError:
            continue
        with parent:
            gone = storage_named("directory").sweep(parent).gone
            removed += (os.path.join(path, file_name) for file_name in gone)
    return {"removed": removed}
