"""Verb sweep: delete what operations left that were killed half way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.record.names import parse_image_file_name
from homemgr.storage.kinds import storage_named

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Delete leftovers in the given directories; tells whose removal was cut short."""
    removed: list[str] = []
    for path in task.texts("directories"):
        try:
            parent = Fd(os.open(path, DIRECTORY_FLAGS))
        except FileNotFoundError:
            continue
        with parent:
            for file_name in storage_named("directory").sweep(parent).gone:
                parsed = parse_image_file_name(file_name)
                if parsed is not None:
                    removed.append(parsed[0])
    return {"removed": removed}
