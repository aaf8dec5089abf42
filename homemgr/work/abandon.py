"""Verb abandon: delete what a transfer kept beside homes, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.record import names
from homemgr.storage import paths, rooms, snapshot_shelf, snapshot_sweep, staging
from homemgr.storage.directory import original_name
from homemgr.storage.kinds import STORAGES

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.work.task import Task

#: Names that no home has (``storage.directory``), of what arrives and of what has left.
_ARRIVING, _LEFT = ".#homemgr-in-", ".#homemgr-left-"


def run(task: Task) -> dict[str, object]:
    """Delete it, if it is there."""
    name = task.text("name")
    if not name.startswith((_ARRIVING, _LEFT, rooms.ARRIVING_PREFIX)) or "/" in name:
        raise job.ProtocolError("no name of what a transfer keeps")
    path = os.path.join(task.text("directory"), name)
    if name.startswith(rooms.ARRIVING_PREFIX):
        rooms.clear(path, STORAGES.values())
        return {}
    with suppress(errors.FileNotFound, FileNotFoundError), paths.open_safe_parent(path) as parent:
        if name.startswith(_LEFT):
            _forget_snapshots(parent, original_name(name, _LEFT))
        staging.abandon(parent, name)
    return {}


def _forget_snapshots(parent: Fd, file_name: str) -> None:
    """Delete those of a home that is another machine's now, and of which nothing stays here."""
    snapshot_sweep.set_aside_without(parent, file_name)
    named = names.parse_image_file_name(file_name)
    if named is not None:
        snapshot_shelf.sweep_aside(parent, named[0])
