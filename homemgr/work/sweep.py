"""Verb sweep: delete what operations left that were killed half way."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import verified
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import paths, public_blobs, snapshot_sweep
from homemgr.storage.kinds import STORAGES

if TYPE_CHECKING:
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


def run(task: Task) -> dict[str, object]:
    """Delete leftovers in the given directories; tells which images' removal was cut short."""
    removed: list[str] = []
    _sweep_devices()
    for path in task.texts("directories"):
        try:
            # Where others can rename, what looks like ours may be anybody's.
            parent = paths.open_safe_parent(os.path.join(path, "any"))
        except errors.FileNotFound:
            continue
        except errors.HomeError as error:
            log.warning("Leftovers in %s stay: %s", path, error)
            continue
        with parent:
            snapshot_sweep.orphans(parent)
            for storage in STORAGES.values():
                gone = storage.sweep(parent)
                removed += (os.path.join(path, file_name) for file_name in gone)
            snapshot_sweep.sweep(parent)
    if task.argument("blob_root") is not None:
        with Fd.open(task.text("blob_root"), DIRECTORY_FLAGS) as root:
            public_blobs.recover(root)
    return {"removed": removed}


def _sweep_devices() -> None:
    try:
        verified.sweep()
    except OSError as error:
        log.warning("Devices that extensions left are not looked for: %s", error)
