"""Verb activate: check the credentials and mount the home area in one step.

Until the last call everything is held by descriptors: a failure or a kill
before it leaves no mount, after it the home is active.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.record import storages
from homemgr.storage import idmapping, mountpoint
from homemgr.work import extensions, inside, whole

if TYPE_CHECKING:
    from homemgr.extension.whole import WholeMode
    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.storage.top import Top
    from homemgr.work.extensions import Merging
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Mount the home; gives the record that counts and what belongs into the binding."""
    opened = inside.open_home(task)
    with opened.area:
        effective = opened.record.on(task.machine)
        uid = task.local_uid
        # Before anything is written: the caller may ask for what the record forbids.
        mode = whole.mode_for(task, effective)
        with (
            mountpoint.prepare(effective.home_directory) as target,
            opened.area.attach(
                _mapping(effective, opened.top, uid),
                nosuid=effective.mount_nosuid,
                nodev=effective.mount_nodev,
                noexec=effective.mount_noexec,
            ) as mount,
        ):
            opened.write_through_if_possible()
            with ExitStack() as closing:
                merged = _merge(task, mount, effective, mode, closing)
                # A service that came after ours has looked already which homes are active.
                task.channel.require_wanted()
                mountpoint.publish(merged.home, target)
                # Not before: until the home is seen, every failure has to take it all away again.
                opened.area.keep()
                merged.finish(effective.home_directory)
    return {**result(task, opened), "extensions": merged.report()}


def _merge(
    task: Task, home: Fd, effective: EffectiveRecord, mode: WholeMode | None, closing: ExitStack
) -> Merging:
    if mode is None:
        return extensions.merge_into(task, home, effective, closing)
    return whole.merge(task, home, effective, mode, closing)


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
            "imagePath": None if task.abilities.is_remote else task.image_path,
            **storages.members(task.effective.storage or "directory"),
            "homeDirectory": effective.home_directory,
            "uid": task.local_uid,
            "gid": task.local_uid,
            **opened.area.binding(),
        },
        "is_mounted": mountpoint.is_active(effective.home_directory),
    }
