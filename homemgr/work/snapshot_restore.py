"""Verbs that bring a snapshot back: the whole home while nobody uses it, or single files.

The record does not go back with the files. What counts now is put into the restored home
before it is one: the present password stays the only one, no old one comes back, and no right
that was taken away. An image has its passwords in its key slots, so that one of other
passwords is refused.
"""

from __future__ import annotations

import logging
import stat
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import btrfs
from homemgr.kernel.capabilities import only_capabilities
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.synchronization import syncfs
from homemgr.record import signature, snapshots
from homemgr.record.snapshots import IMAGE, SUBVOLUME, Note
from homemgr.storage import (
    embedded,
    idmapping,
    image_file,
    limits,
    mountpoint,
    snapshot_entry,
    snapshot_exchange,
    snapshot_pending,
    snapshot_taking,
    tree_copy,
)
from homemgr.storage import top as tops
from homemgr.storage.file_restore import FileRestore
from homemgr.storage.paths import location
from homemgr.storage.top import Top
from homemgr.work import inside
from homemgr.work.damage import Obstacle
from homemgr.work.exclusion import alone_with_home
from homemgr.work.snapshot_place import Place, shelf_of, teller

if TYPE_CHECKING:
    import os

    from homemgr.record.model import UserRecord
    from homemgr.storage.snapshot_pending import Pending
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: The most names that are told of, as they stay as they are.
_TOLD = 1000


def whole(task: Task) -> dict[str, object]:
    """Have the home as it was; what it is now becomes a snapshot. Gives that one's note.

    Nobody uses the home, and its files may be missing altogether.
    """
    if mountpoint.is_active(task.effective.home_directory):
        raise errors.HomeBusy(f"Home area {task.record.name} is in use.")
    with shelf_of(task, alone=True) as place:
        wanted = snapshot_entry.read_note(place.shelf, task.text("name"))
        old = _what_is_there(place)
        name = snapshots.name_for(
            time.time_ns() // 1000,
            (note.name for note in snapshot_entry.notes(place.shelf)),
            "before-restore-",
        )
        with snapshot_pending.begun(place.shelf, name) as pending:
            if wanted.how == IMAGE:
                _require_same_words(task, wanted)
                _make_image(task, place, wanted, pending, old)
                # From here on the image may be another one than the record names.
                task.channel.ask("exchange", {})
            else:
                _make_tree(task, place, wanted, pending, old)
            if old is None:
                snapshot_exchange.put(place.parent, place.file_name, pending)
                return {}
            note = _note_of_now(task, name, wanted, old, place)
            # Before the exchange: after a kill a sweep makes the snapshot, with this note.
            pending.write_note(note)
            snapshot_exchange.exchange(place.parent, place.file_name, pending, name)
        return {"snapshot": note.shown()}


def _what_is_there(place: Place) -> os.stat_result | None:
    try:
        return snapshot_taking.look_at(place.parent, place.file_name)
    except errors.HomeAbsent:
        return None


def _note_of_now(task: Task, name: str, wanted: Note, old: os.stat_result, place: Place) -> Note:
    """What is known of the present state, which becomes a snapshot.

    Its files are told apart by what they are: a later restore copies them in the same way.
    """
    how = IMAGE
    if stat.S_ISDIR(old.st_mode):
        with Fd.open(place.file_name, DIRECTORY_FLAGS, dir_fd=place.parent.fileno()) as top:
            how = snapshot_taking.way_of(top, place.shelf)
    by_uid = task.argument("by_uid")
    assert isinstance(by_uid, int)
    return Note(
        name,
        time.time_ns() // 1000,
        by_uid,
        f"before {wanted.name} was restored",
        is_automatic=True,
        how=how,
        record=task.record.for_host(),
    )


# -- trees ------------------------------------------------------------------------------------


def _make_tree(
    task: Task, place: Place, wanted: Note, pending: Pending, old: os.stat_result | None
) -> None:
    """Make the files that are going to be the home, with the record and the blobs of now."""
    if not _is_tree(task) or (old is not None and not stat.S_ISDIR(old.st_mode)):
        raise errors.NotSupported(
            f"Snapshot {wanted.name} holds files, and the home is stored as"
            f" {task.effective.storage} now: restore what is needed with --path= after a login."
        )
    with snapshot_entry.open_home(place.shelf, wanted.name) as source, ExitStack() as opened:
        if wanted.how != SUBVOLUME and not tree_copy.can_share(place.shelf):
            snapshot_taking.require_room(source, place.shelf, is_wanted=True)
        now, as_subvolume = None, wanted.how == SUBVOLUME
        if old is not None:
            now = opened.enter_context(_top_of(place.parent, place.file_name))
            as_subvolume = btrfs.is_subvolume(now.fd.fileno())
        into, tell = pending.place, teller(task, "Restore")
        snapshot_taking.writable_tree(
            source, into, snapshot_entry.HOME, tell, as_subvolume=as_subvolume
        )
        new = opened.enter_context(_top_of(into, snapshot_entry.HOME))
        _carry_over(task, now, new)
        if now is not None:
            limits.carry_over(now.fd, new.fd, place.parent)
        # On disk before it takes the place of the home.
        syncfs(new.fd.fileno())


def _is_tree(task: Task) -> bool:
    """Whether the files of the home lie on disk as they are."""
    return not (task.abilities.has_key or task.storage.image_is_file)


def _top_of(parent: Fd, name: str) -> Top:
    top = Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno())
    return Top(top, location(top.fileno()))


def _carry_over(task: Task, now: Top | None, new: Top) -> None:
    """Give the restored home the record that counts, and the public files that it names."""
    record = _present_record(task, now)
    try:
        embedded.write_identity(new, record.embedded().pretty())
    except errors.HostileHome:
        # Its user had put a directory in that place.
        Obstacle(new).keep()
        embedded.write_identity(new, record.embedded().pretty())
    if now is None:
        return
    manifest = record.on(task.machine).blob_manifest or {}
    with ExitStack() as copies:
        blobs: dict[str, Fd] = {}
        try:
            blobs = embedded.read_blobs(now, manifest)
        except errors.HostileHome as error:
            # What is wrong with the home of now is no reason to leave it as it is.
            log.warning("Public files of %s are not restored: %s", task.record.name, error)
        for copy in blobs.values():
            copies.enter_context(copy)
        embedded.write_blobs(new, {name: copy.fileno() for name, copy in blobs.items()})


def _present_record(task: Task, now: Top | None) -> UserRecord:
    if now is not None:
        return inside.record_in_effect(task, now)
    signature.require_accepted(task.record, task.keyring)
    return task.record


# -- images -----------------------------------------------------------------------------------


def _make_image(
    task: Task, place: Place, wanted: Note, pending: Pending, old: os.stat_result | None
) -> None:
    was = wanted.record.on(task.machine).storage
    is_another_kind = was not in (None, task.effective.storage)
    if is_another_kind or (old is not None and not stat.S_ISREG(old.st_mode)):
        raise errors.NotSupported(
            f"Snapshot {wanted.name} is an image, and the home is stored otherwise now."
        )
    with ExitStack() as opened:
        if old is not None:
            image = opened.enter_context(image_file.open_image(task.image_path))
            image_file.lock(image, task.image_path)
        source = opened.enter_context(snapshot_entry.open_image(place.shelf, wanted.name))
        snapshot_taking.clone_image(source, pending.place, snapshot_entry.HOME)


def _require_same_words(task: Task, wanted: Note) -> None:
    """Raise NotSupported if an image is opened by other words than those that count now."""
    if task.abilities.has_key and _words(task, wanted.record) != _words(task, task.record):
        raise errors.NotSupported(
            f"The passwords of home area {task.record.name} have changed since snapshot"
            f" {wanted.name} was taken, and the image in it can be opened by those of that time"
            " alone: it is not restored, as nobody could log in. Set the passwords of that time"
            " first."
        )


def _words(task: Task, record: UserRecord) -> tuple[tuple[str, ...], ...]:
    effective = record.on(task.machine)
    return effective.hashed_passwords, effective.recovery_key_hashes, effective.token_hashes


# -- single files -----------------------------------------------------------------------------


def files(task: Task) -> dict[str, object]:
    """Bring ``paths`` back, with the rights of the user alone; tells what stays as it was.

    Into the home as it is seen while it is in use, else into its tree on disk.
    """
    report = _Report()
    with ExitStack() as opened:
        place = opened.enter_context(shelf_of(task, alone=False))
        name = task.text("name")
        if snapshot_entry.read_note(place.shelf, name).how == IMAGE:
            raise errors.NotSupported(
                f"Snapshot {name} is an image, which is opened as a whole only."
            )
        home = snapshot_entry.open_home(place.shelf, name)
        source = opened.enter_context(_as_users(task, Top(home, name), is_read_only=True))
        target = opened.enter_context(_target(task, opened))
        opened.enter_context(filesystem_identity(task.local_uid, task.local_uid))
        opened.enter_context(only_capabilities(0))
        restore = FileRestore(
            source,
            target,
            replaces=bool(task.argument("force")),
            note=report.note,
            tell=teller(task, "Restore"),
        )
        for path in task.texts("paths"):
            restore.restore(path.encode("latin-1"))
    return {"restored": restore.count, "counts": report.counts, "kept": report.kept}


def _as_users(task: Task, top: Top, *, is_read_only: bool = False) -> Fd:
    """The files of a tree on disk as its user sees them."""
    with top:
        mapping = idmapping.strict(top.disk_uid, task.local_uid, top.disk_gid)
        return tops.attach(
            top, mapping, nosuid=True, nodev=True, noexec=True, is_read_only=is_read_only
        )


def _target(task: Task, opened: ExitStack) -> Fd:
    home_directory = task.effective.home_directory
    if mountpoint.is_active(home_directory):
        return mountpoint.open_shown(home_directory)
    if task.argument("is_mounted"):
        # Nobody holds it for us.
        raise errors.HomeNotActive(
            f"The user of home area {task.record.name} has just been logged out; try again."
        )
    if not _is_tree(task):
        raise errors.HomeNotActive(
            f"Home area {task.record.name} can be written while its user is logged in only."
        )
    opened.enter_context(alone_with_home(task))
    area = opened.enter_context(task.open_area())
    mapping = idmapping.strict(area.top.disk_uid, task.local_uid, area.top.disk_gid)
    return area.attach(mapping, nosuid=True, nodev=True, noexec=True)


class _Report:
    """What stays as it was: how many of each kind, and the first of them by path."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        #: Paths byte for byte: each character is one.
        self.kept: list[list[str]] = []

    def note(self, kind: str, path: bytes) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.kept) < _TOLD:
            self.kept.append([kind, path.decode("latin-1")])
