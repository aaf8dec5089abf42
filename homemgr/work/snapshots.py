"""Verbs about the snapshots of a home: take, list, remove; and what all of these share.

A home that is a tree on disk is read as it lies there, in use or not. An image is copied
while nobody uses it.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import sizing, snapshots
from homemgr.record.snapshots import COPIED, IMAGE, Note
from homemgr.record.storages import abilities_of
from homemgr.storage import (
    image_file,
    mountpoint,
    paths,
    snapshot_entry,
    snapshot_pending,
    snapshot_sweep,
    snapshot_taking,
    snapshot_views,
)
from homemgr.work.exclusion import alone_with_home
from homemgr.work.snapshot_place import Place, shelf_of, teller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


# -- taking ------------------------------------------------------------------------------------


def take(task: Task) -> dict[str, object]:
    """Take one, and drop those whose time is over; gives its note.

    Automatic ones are taken only where that costs nothing: otherwise ``skipped`` says why.
    """
    try:
        how = _way(task)
        with _still(task, how), shelf_of(task, alone=True, make=True) as place:
            return {"snapshot": _take(task, place, how).shown()}
    except (errors.NotSupported, errors.NoDiskSpace, errors.HomeBusy, errors.HomeInUse) as error:
        if not task.argument("automatic"):
            raise
        return {"skipped": error.message}


def _way(task: Task) -> str:
    """How one can be taken. Raises NotSupported, and NoDiskSpace, before anything is made.

    What is encrypted file by file has none: its file system shares no blocks.
    """
    with paths.open_safe_parent(task.image_path) as parent:
        found = snapshot_taking.look_at(parent, os.path.basename(task.image_path))
        if task.argument("automatic") and not snapshot_taking.has_spare_room(parent):
            raise errors.NoDiskSpace("Less than a twentieth of the file system is free.")
        if not stat.S_ISDIR(found.st_mode):
            snapshot_taking.require_shared_image(parent, found)
            return IMAGE
        if task.abilities.has_key:
            raise errors.NotSupported(
                f"Home area {task.record.name} has storage {task.effective.storage}: its file"
                " system cannot share blocks of encrypted files, and a copy would lie there"
                " readable."
            )
        with task.open_area() as area:
            how = snapshot_taking.way_of(area.top.fd, parent)
            if how == COPIED:
                if task.argument("automatic"):
                    raise errors.NotSupported("It would be a full copy.")
                is_wanted = bool(task.argument("full_copy"))
                snapshot_taking.require_room(area.top.fd, parent, is_wanted=is_wanted)
                _require_unlimited(task)
            return how


def _require_unlimited(task: Task) -> None:
    """Raise AccessDenied if its user would go round the limit of his home's size by a full copy.

    What a snapshot holds counts for nobody; one that shares its blocks grows by what was counted.
    """
    if task.argument("by_uid") == task.local_uid and sizing.has_chosen_size(task.effective):
        raise errors.AccessDenied(
            f"The size of home area {task.record.name} is limited, and a full copy of it is not"
            " counted: an administrator can take it."
        )


@contextmanager
def _still(task: Task, how: str) -> Iterator[None]:
    """Have an image to oneself; a tree may be in use."""
    if how != IMAGE:
        yield
        return
    with alone_with_home(task):
        if mountpoint.is_active(task.effective.home_directory):
            raise errors.HomeBusy(
                f"Home area {task.record.name} is an image, and in use: a snapshot of it is taken"
                " while its user is logged out."
            )
        yield


def _take(task: Task, place: Place, how: str) -> Note:
    is_automatic = bool(task.argument("automatic"))
    now_usec = time.time_ns() // 1000
    kept = snapshots.KEPT - int(is_automatic)
    existing = snapshot_sweep.prune(place.shelf, snapshot_entry.notes(place.shelf), kept)
    if len(existing) >= snapshots.MOST and not is_automatic:
        raise errors.TooManyOperations(
            f"There are {len(existing)} snapshots of home area {task.record.name}; at most"
            f" {snapshots.MOST} are kept. Remove some first."
        )
    name = task.text("name") or snapshots.name_for(
        now_usec, (note.name for note in existing), task.text("prefix")
    )
    by_uid = task.argument("by_uid")
    assert isinstance(by_uid, int)
    reason = snapshots.check_reason(task.text("reason"))
    with snapshot_pending.begun(place.shelf, name) as pending:
        how = _fill(task, pending.place, how)
        record = task.record.for_host()
        note = Note(name, now_usec, by_uid, reason, is_automatic, how, record)
        pending.write_note(note)
        pending.publish(name)
    return note


def _fill(task: Task, into: Fd, how: str) -> str:
    """Put the files there; gives how that was done."""
    if how != IMAGE:
        with task.open_area() as area:
            return snapshot_taking.take_tree(area.top.fd, into, how, teller(task, "Snapshot"))
    with image_file.open_image(task.image_path) as image:
        image_file.lock(image, task.image_path)
        snapshot_taking.clone_image(image, into, snapshot_entry.HOME)
    return IMAGE


def prune(task: Task) -> dict[str, object]:
    """Drop those whose time is over, of all homes in some directories."""
    for path in task.texts("directories"):
        # What is on one disk, or on a server, must not keep those on others.
        try:
            # Where others can rename, what looks like ours may be anybody's.
            with paths.open_safe_parent(os.path.join(path, "any")) as parent:
                snapshot_sweep.sweep(parent)
        except (errors.FileNotFound, errors.UnsafePath, errors.InvalidArgs) as error:
            log.debug("There are no snapshots in %s: %s", path, error)
        except (errors.HomeError, OSError) as error:
            log.warning("Snapshots in %s are not looked at: %s", path, error)
    return {}


def forget(task: Task) -> dict[str, object]:
    """Delete those of ``user`` in ``directory`` from ``since_usec`` on, and before ``before_usec``.

    With ``only_readable`` those that are not encrypted, whenever they were taken.
    """
    since, before = task.argument("since_usec"), task.argument("before_usec")
    assert isinstance(since, int)
    assert isinstance(before, int)
    only_readable = task.argument("only_readable")

    def is_dropped(note: Note) -> bool:
        if only_readable:
            return not _is_encrypted(task, note)
        return since <= note.taken_usec < before

    path = os.path.join(task.text("directory"), "any")
    with suppress(errors.FileNotFound), paths.open_safe_parent(path) as parent:
        snapshot_sweep.drop(parent, task.text("user"), is_dropped)
    return {}


def _is_encrypted(task: Task, note: Note) -> bool:
    """Whether nobody can read it without a password: it is an image, and was no plain one."""
    storage = note.record.on(task.machine).storage
    return note.how == IMAGE and (storage is None or abilities_of(storage).has_key)


# -- looking and removing ------------------------------------------------------------------------


def show(task: Task) -> dict[str, object]:
    """List what there is, and where it is mounted."""
    try:
        with shelf_of(task, alone=False) as place:
            rows: list[JsonObject] = []
            for note in snapshot_entry.notes(place.shelf):
                mounted = snapshot_views.mounted_at(place.shelf, note.name)
                rows.append({**note.shown(), "mounted": list(mounted)})
            return {"snapshots": rows}
    except (errors.NoSuchSnapshot, errors.FileNotFound):
        return {"snapshots": []}


def remove(task: Task) -> dict[str, object]:
    """Delete one; with ``only_by`` only if that user took it on purpose."""
    name = task.text("name")
    with shelf_of(task, alone=True) as place:
        only_by = task.argument("only_by")
        if isinstance(only_by, int):
            note = snapshot_entry.read_note(place.shelf, name)
            if note.is_automatic or note.by_uid != only_by:
                raise errors.AccessDenied(
                    f"Snapshot {name} was not taken by you; an administrator can remove it."
                )
        mounted = snapshot_views.mounted_at(place.shelf, name)
        if mounted:
            raise errors.HomeBusy(f"Snapshot {name} is mounted at {mounted[0]}.")
        snapshot_entry.remove(place.shelf, name)
    return {}
