"""Verb that compares a snapshot with the home, or with another: which names have changed.

Compared is all that `stat` and the text of a link say, but for times of access and of change
of the inode; no content is read. Between two snapshots of one subvolume btrfs itself says which
names have to be looked at.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.kernel import btrfs
from homemgr.record.snapshots import IMAGE
from homemgr.storage import reader, snapshot_entry
from homemgr.storage.snapshot import Snapshots
from homemgr.transfer.selection import ALL
from homemgr.work.difference import changed_names
from homemgr.work.snapshot_place import Place, shelf_of, teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.storage.reader import Step
    from homemgr.transfer.selection import Selection
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: The most changes, and bytes of their paths, that are told in full; all are counted.
_MOST, _MOST_BYTES = 20_000, 512 << 10

#: What happened to a name.
ADDED, REMOVED, CHANGED, REPLACED = "added", "removed", "changed", "replaced"

_KINDS: Final = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def run(task: Task) -> dict[str, object]:
    """The changes from snapshot ``name`` to snapshot ``to``, or to the home as it is now.

    As JSON text of ASCII: names may have any bytes, which are lone surrogates there.
    """
    with ExitStack() as opened:
        place = opened.enter_context(shelf_of(task, alone=False))
        old = opened.enter_context(_snapshot(place, task.text("name")))
        other = task.text("to")
        if other:
            new = opened.enter_context(_snapshot(place, other))
        else:
            new = _home_now(task, place, opened)
        answer = _Answer()
        for path, what, kind in changes(old, new, teller(task, "Compare")):
            answer.add(path, what, kind)
    return {"json": json.dumps(answer.to_json())}


def _snapshot(place: Place, name: str) -> Fd:
    if snapshot_entry.read_note(place.shelf, name).how == IMAGE:
        raise errors.NotSupported(f"Snapshot {name} is an image, which cannot be looked into.")
    return snapshot_entry.open_home(place.shelf, name)


def _home_now(task: Task, place: Place, opened: ExitStack) -> Fd:
    """The home on disk, at one moment if that can be had."""
    if task.abilities.has_key or task.storage.image_is_file:
        raise errors.NotSupported(
            f"Home area {task.record.name} has storage {task.effective.storage}, which cannot be"
            " compared with files; name two snapshots."
        )
    area = opened.enter_context(task.open_area())
    moments = opened.enter_context(Snapshots(place.parent, place.file_name, area.top.fd))
    return opened.enter_context(moments.taken()).fd


def changes(
    old: Fd, new: Fd, tell: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[bytes, str, str]]:
    """Path, what happened to it, and its kind, in the order of a walk; the top is left out."""
    only = _selection(old, new)
    before, after = _names(old, only), _names(new, only)
    one, other = next(before, None), next(after, None)
    count = 0
    while one is not None or other is not None:
        count += 1
        if count % 1000 == 0:
            tell(count)
        if other is None or (one is not None and _order(one) < _order(other)):
            assert one is not None
            yield one.path, REMOVED, _kind(one)
            one = next(before, None)
        elif one is None or _order(other) < _order(one):
            yield other.path, ADDED, _kind(other)
            other = next(after, None)
        else:
            what = _difference(one, other)
            if what and one.path:
                yield one.path, what, _kind(other)
            one, other = next(before, None), next(after, None)


def _selection(old: Fd, new: Fd) -> Selection | None:
    """What has to be looked at; everything unless btrfs knows better."""
    try:
        if btrfs.is_subvolume(old.fileno()) and btrfs.is_subvolume(new.fileno()):
            return changed_names(old, new)
    except (errors.StreamError, OSError) as error:
        log.info("Btrfs does not tell what has changed, all is looked at: %s", error)
    return ALL


def _names(top: Fd, only: Selection | None) -> Iterator[Step]:
    return (step for step in reader.walk(top, only=only) if step.what != reader.LEAVE)


def _order(step: Step) -> list[bytes]:
    """Its place in a walk: depth first, names in the order of their bytes."""
    return step.path.split(b"/") if step.path else []


def _difference(one: Step, other: Step) -> str:
    before, after = one.stat, other.stat
    if stat.S_IFMT(before.st_mode) != stat.S_IFMT(after.st_mode):
        return REPLACED
    said = [(found.st_mode, found.st_uid, found.st_gid, found.st_rdev) for found in (before, after)]
    if said[0] != said[1]:
        return CHANGED
    # The time of a directory tells of the names in it, which are told of themselves.
    if stat.S_ISDIR(before.st_mode):
        return ""
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return CHANGED
    if stat.S_ISLNK(before.st_mode):
        texts = [_link_text(step) for step in (one, other)]
        return CHANGED if texts[0] != texts[1] else ""
    return ""


def _link_text(step: Step) -> bytes | None:
    """Where a link leads; None if it is none any more, in a home that is in use."""
    try:
        return os.readlink(step.name, dir_fd=step.parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        return None


def _kind(step: Step) -> str:
    return _KINDS.get(stat.S_IFMT(step.stat.st_mode), "device")


class _Answer:
    """All changes counted, the first of them in full."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._changes: list[dict[str, str]] = []
        self._room = _MOST_BYTES

    def add(self, path: bytes, what: str, kind: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        if len(self._changes) < _MOST and len(path) <= self._room:
            self._room -= len(path)
            self._changes.append({"path": os.fsdecode(path), "what": what, "kind": kind})

    def to_json(self) -> dict[str, object]:
        is_whole = sum(self._counts.values()) == len(self._changes)
        return {"counts": self._counts, "changes": self._changes, "complete": is_whole}
