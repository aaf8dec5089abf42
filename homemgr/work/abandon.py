"""Verb abandon: delete the tree beside homes that a transfer kept, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.storage import paths
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from homemgr.work.task import Task

#: Names that no home has (``storage.directory``), of what arrives and of what has left.
_PREFIXES = (".#homemgr-in-", ".#homemgr-left-")


def run(task: Task) -> dict[str, object]:
    """Delete it, if it is there."""
    name = task.text("name")
    if not name.startswith(_PREFIXES) or "/" in name:
        raise job.ProtocolError("no name of what a transfer keeps")
    path = os.path.join(task.text("directory"), name)
    with suppress(errors.FileNotFound, FileNotFoundError), paths.open_safe_parent(path) as parent:
        delete_tree(parent, name)
    return {}
