"""Verb activate: check the credentials and mount the home area in one step.

Until the last call everything is held by descriptors: a failure or a kill
before it leaves no mount, after it the home is active.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.storage import idmapping, mountpoint
from homemgr.storage.top import Top, attach
from homemgr.work import extensions, inside

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Mount the home; gives the record that counts and what belongs into the binding."""
    opened = inside.open_home(task)
    with opened.top:
        effective = opened.record.on(task.machine)
        uid = task.local_uid
        with (
            mountpoint.prepare(effective.home_directory) as target,
            attach(
                opened.top,
                _mapping(effective, opened.top, uid),
                nosuid=effective.mount_nosuid,
                nodev=effective.mount_nodev,
                noexec=effective.mount_noexec,
            ) as mount,
        ):
            opened.write_through()
            with ExitStack() as closing:
                merged = extensions.merge_into(task, mount, effective, closing)
                mountpoint.publish(mount, target)
                merged.finish(effective.home_directory)
    return {**result(task, opened), "extensions": merged.report()}


def _mapping(effective: EffectiveRecord, top: Top, local_uid: int) -> idmapping.IdMapping:
    """The record's policy; a home of another owner than nobody can only have homed's."""
    if effective.idmap_policy == "strict":
        return idmapping.strict(top.disk_uid, local_uid, top.disk_gid)
    return idmapping.homed(top.disk_uid, local_uid, top.disk_gid)


def result(task: Task, opened: inside.Opened) -> dict[str, object]:
    """What the daemon keeps after the home was open."""
    effective = opened.record.on(task.machine)
    return {
        "record": opened.record.for_host().data if opened.settled.rewrite_host else None,
        "binding": {
            "imagePath": task.image_path,
            "storage": task.effective.storage or "directory",
            "homeDirectory": effective.home_directory,
            "uid": task.local_uid,
            "gid": task.local_uid,
        },
        "is_mounted": mountpoint.is_active(effective.home_directory),
    }
