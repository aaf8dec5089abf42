"""All files of a home, looked at: whose they are, and whether extensions left traces.

Bounded in number, by descriptor, following nothing; counts only.
"""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.extension import home_side
from homemgr.storage import idmapping, mountpoint
from homemgr.storage.reader import LEAVE, walk
from homemgr.work.cleaning import clean_home
from homemgr.work.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.storage.top import Top
    from homemgr.work.task import Task

#: Steps of the walk, at most two for each file: some seconds on a slow disk.
MAX_STEPS = 400_000


#: Where overlays work while the home is in use, as root.
_NOT_FILES = frozenset({os.fsencode(f"{home_side.OURS}/{home_side.WORK}")})


class _Seen(NamedTuple):
    """What the walk has counted."""

    files: int
    strangers: int
    first: bytes
    #: Deleted files of extensions, as overlayfs marks them.
    marks: int


def troubles(task: Task, top: Top) -> Iterator[Trouble]:
    """What is wrong with them."""
    mapping = _mapping(task, top)
    try:
        seen = _look(top, mapping)
    except (errors.HomeError, OSError) as error:
        reason = error.message if isinstance(error, errors.HomeError) else str(error.strerror)
        yield Trouble("files-unread", task.image_path, reason)
        return
    if seen.strangers:
        where = os.fsdecode(seen.first).encode("utf-8", "replace").decode()
        detail = f"{seen.strangers} of {seen.files} looked at, the first is {where!r}."
        yield Trouble("files-owner", task.image_path, detail)
    yield from _traces(task, top, seen.marks)


def _traces(task: Task, top: Top, marks: int) -> Iterator[Trouble]:
    if mountpoint.is_active(task.effective.home_directory):
        # Where they belong meanwhile.
        return
    try:
        is_used = home_side.is_used(top.fd)
    except errors.HostileHome as error:
        yield Trouble("extension-traces", task.image_path, error.message)
        return
    if not is_used and not marks:
        return
    detail = f"{marks} marks of deleted files." if marks else ""
    # Marks without the notes of a session may be anybody's, who made them as root.
    mend = (lambda: _clean(task, top)) if is_used else None
    yield Trouble("extension-traces", task.image_path, detail, mend)


def _clean(task: Task, top: Top) -> None:
    clean_home(task, top.fd)
    if home_side.is_used(top.fd):
        raise errors.HomeBusy("Some traces stay; see the log.")


def _look(top: Top, mapping: idmapping.IdMapping) -> _Seen:
    uids, gids = (idmapping.disk_ids(text) for text in mapping)
    files = strangers = marks = 0
    first = b""
    for step in islice(walk(top.fd, leave_out=_NOT_FILES), MAX_STEPS):
        if step.what == LEAVE:
            continue
        files += 1
        found = step.stat
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            marks += 1
        elif not (_is_in(found.st_uid, uids) and _is_in(found.st_gid, gids)):
            first = first or step.path
            strangers += 1
    return _Seen(files, strangers, first, marks)


def _is_in(number: int, ranges: list[range]) -> bool:
    return any(number in one for one in ranges)


def _mapping(task: Task, top: Top) -> idmapping.IdMapping:
    make = idmapping.strict if task.effective.idmap_policy == "strict" else idmapping.homed
    return make(top.disk_uid, task.local_uid, top.disk_gid)
