"""Verbs that show a snapshot to a backup tool under a uid of its own, read-only, and end that.

Nothing of it is remembered, see `storage.snapshot_views`.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.mounts import UMOUNT_NOFOLLOW, umount2
from homemgr.record.snapshots import IMAGE
from homemgr.storage import idmapping, mountpoint, snapshot_entry, snapshot_views, top
from homemgr.storage.paths import location, open_safe_parent
from homemgr.work.snapshot_place import shelf_of

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Show one at ``path``, an empty directory; all files belong to ``uid`` and ``gid``."""
    name, path = task.text("name"), task.text("path")
    uid, gid = task.argument("uid"), task.argument("gid")
    assert isinstance(uid, int)
    assert isinstance(gid, int)
    with ExitStack() as opened:
        place = opened.enter_context(shelf_of(task, alone=False))
        if snapshot_entry.read_note(place.shelf, name).how == IMAGE:
            raise errors.NotSupported(f"Snapshot {name} is an image: there are no files to show.")
        target = opened.enter_context(_target(path))
        home = snapshot_entry.open_home(place.shelf, name)
        shown = opened.enter_context(top.Top(home, location(home.fileno())))
        mapping = idmapping.strict(shown.disk_uid, uid, shown.disk_gid, gid)
        mount = opened.enter_context(
            top.attach(shown, mapping, nosuid=True, nodev=True, noexec=True, is_read_only=True)
        )
        mountpoint.publish(mount, target)
    return {}


def _target(path: str) -> Fd:
    with open_safe_parent(path) as parent:
        try:
            target = Fd.open(os.path.basename(path), DIRECTORY_FLAGS, dir_fd=parent.fileno())
        except OSError as error:
            raise errors.from_os_error(error, f"Opening {path}, an empty directory") from error
    if mountpoint.is_active(path) or os.listdir(target.fileno()):
        target.close()
        raise errors.PathExists(f"{path} is not an empty directory where nothing is mounted.")
    return target


def end(task: Task) -> dict[str, object]:
    """Take the view at ``path`` away; raises HomeNotActive, and HomeBusy while it is in use."""
    path = task.text("path")
    with open_safe_parent(path):
        if not any(view.point == path for view in snapshot_views.views()):
            raise errors.HomeNotActive(f"No snapshot is mounted at {path}.")
        try:
            umount2(path, UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise errors.HomeBusy(f"{path} is in use.") from error
    return {}
