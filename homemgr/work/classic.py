"""Verbs classic-take and classic-give-back: a home directory becomes a home area, or one again.

The directory becomes the home area by two renames, never by a copy. In between it lies under a
name of its own in the base directory, where nobody but root gets, while its files change their
owner. Which tree it is was noted at the survey: whatever has its name by now stays untouched.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.holders import Target, find_holders
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.processes import processes_of
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.kernel.synchronization import syncfs
from homemgr.storage import mountpoint, owners, paths, snapshot_sweep
from homemgr.storage.blobs import BLOBS
from homemgr.storage.embedded import IDENTITY, forget_unfinished, write_identity
from homemgr.storage.owner_ledger import Ledger
from homemgr.storage.owners import Owner
from homemgr.storage.staging import is_there, tree_at
from homemgr.storage.top import Top
from homemgr.storage.tree import delete_tree
from homemgr.transfer.report import Report
from homemgr.work.telling import Telling

if TYPE_CHECKING:
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: The name of a home on the way, in the base directory: prefix, NAME.
STAGE_PREFIX = ".#homemgr-classic-"

_KEYS = ".ssh", "authorized_keys"
_KEYS_LIMIT = 64 << 10
_HOLDERS_S = 10.0
_NAMED = 5


class _Places(NamedTuple):
    """Where the home directory and the home area lie."""

    home: str
    image: str
    stage_name: str
    tree: str

    @classmethod
    def of(cls, task: Task) -> _Places:
        """As the daemon noted it."""
        user = task.record.name
        return cls(task.text("home"), task.text("image"), STAGE_PREFIX + user, task.text("tree"))

    @property
    def home_name(self) -> str:
        return os.path.basename(self.home)

    @property
    def file_name(self) -> str:
        return os.path.basename(self.image)

    def open_base(self) -> Fd:
        return paths.ensure_base(os.path.dirname(self.image))


def take(task: Task) -> dict[str, object]:
    """Make the home directory the home area; what of that is done already is left alone."""
    where = _Places.of(task)
    owner = Owner(_number(task, "uid"), _number(task, "gid"))
    telling = Telling(task.channel)

    def progress(files: int, _: int) -> None:
        task.channel.require_wanted()
        telling.count(files, 0)

    with where.open_base() as base, paths.open_safe_parent(where.home) as parent:
        if tree_at(base, where.file_name) == where.tree:
            # By one who was killed, perhaps before it was on disk.
            os.fsync(base.fileno())
        else:
            if tree_at(base, where.stage_name) != where.tree:
                _rename(parent, where.home_name, base, where.stage_name, where.tree)
            with _open(base, where.stage_name) as top:
                # Nobody gets in from here on, so this is asked for good.
                require_no_process(task.record.name, owner.uid)
                require_unheld(top)
                telling.expect(_number(task, "files"), 0)
                telling.phase("changing owners")
                # Of an attempt before this one: it was not there at the survey.
                forget_unfinished(top)
                count = owners.take(top, owner, _ledger(task), progress)
                _require_all(top, count, _number(task, "files"))
                _embed(top, where, task.record.embedded().pretty())
                syncfs(top.fileno())
            _rename(base, where.stage_name, base, where.file_name, where.tree)
    return {
        "binding": {
            "imagePath": where.image,
            "storage": "directory",
            "homeDirectory": where.home,
        }
    }


def give_back(task: Task) -> dict[str, object]:
    """Make the home area the home directory again; what of that is done already is left alone.

    Raises HomeInUse, before anything is changed, if somebody has something open in it.
    """
    where = _Places.of(task)
    owner = Owner(_number(task, "uid"), _number(task, "gid"))
    telling = Telling(task.channel)
    report = Report()
    with where.open_base() as base, paths.open_safe_parent(where.home) as parent:
        where = _with_tree_of_now(task, where, base, parent)
        if tree_at(parent, where.home_name) == where.tree:
            os.fsync(parent.fileno())
        else:
            if tree_at(base, where.stage_name) != where.tree:
                with _open(base, where.file_name) as top:
                    require_unheld(top)
                _rename(base, where.file_name, base, where.stage_name, where.tree)
            with _open(base, where.stage_name) as top:
                telling.expect(_number(task, "files"), 0)
                telling.phase("changing owners")
                _unembed(top)
                report = owners.give_back(top, owner, _ledger(task), telling.count)
                syncfs(top.fileno())
            mountpoint.discard(where.home)
            _rename(base, where.stage_name, parent, where.home_name, where.tree)
        _drop_automatic_snapshots(base, task.record.name)
    return {"report": report.to_json()}


def _drop_automatic_snapshots(base: Fd, user: str) -> None:
    """Delete those of the home area that nobody took on purpose, as far as that is possible.

    Those that somebody took were asked for before; if there is one now, it is not ours to delete.
    """
    try:
        snapshot_sweep.drop(base, user, lambda note: note.is_automatic)
    except (errors.HomeError, OSError) as error:
        # They end by themselves some day, and the account waits for the rest of this.
        log.warning("Automatic snapshots of %s stay for now: %s", user, error)


def _with_tree_of_now(task: Task, where: _Places, base: Fd, parent: Fd) -> _Places:
    """The places with the tree that is the home now, noted by the daemon if it is another one.

    A snapshot was restored, or the home was converted and is a directory again. Of what never
    became a home area another directory of its name is none of ours.
    """
    if not task.argument("is_home_area"):
        return where
    known = (tree_at(base, where.stage_name), tree_at(parent, where.home_name))
    now = tree_at(base, where.file_name)
    if not now or where.tree in (now, *known):
        return where
    task.channel.ask("tree", {"tree": now})
    return where._replace(tree=now)


def _ledger(task: Task) -> Ledger:
    return Ledger(task.text("directory"), f"{task.record.name}.owners")


def _number(task: Task, name: str) -> int:
    value = task.argument(name)
    assert isinstance(value, int)
    return value


def _open(parent: Fd, name: str) -> Fd:
    try:
        return openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_NO_SYMLINKS)
    except FileNotFoundError as error:
        where = os.path.join(paths.location(parent.fileno()), name)
        raise errors.HomeAbsent(f"There is no {where}.") from error


def _rename(old: Fd, old_name: str, new: Fd, new_name: str, tree: str) -> None:
    """Give ``tree`` its new name; raises HomeAbsent if it is not the one that has the old one."""
    if tree_at(old, old_name) != tree:
        raise errors.HomeAbsent(
            f"{os.path.join(paths.location(old.fileno()), old_name)} is not the directory that"
            " was there a moment ago; nothing was done to it."
        )
    try:
        renameat2(old.fileno(), old_name, new.fileno(), new_name, RENAME_NOREPLACE)
    except FileExistsError as error:
        where = os.path.join(paths.location(new.fileno()), new_name)
        raise errors.PathExists(f"{where} exists already; remove or rename it first.") from error
    # The new name first: after a power cut there may be both, but never none.
    os.fsync(new.fileno())
    os.fsync(old.fileno())


def _require_all(top: Fd, count: int, surveyed: int) -> None:
    """Raise HostileHome if there are not as many entries as there were at the survey."""
    # The record is there already if an earlier attempt got so far.
    if count - is_there(top, IDENTITY) != surveyed:
        raise errors.HostileHome(
            f"There were {surveyed} files and directories a moment ago, and are {count} now."
        )


def _embed(top: Fd, where: _Places, identity: bytes) -> None:
    """Put the record into the home; the directory's time stays as it was."""
    found = os.fstat(top.fileno())
    with Top(top.duplicate(), where.image) as home:
        write_identity(home, identity)
    os.utime(top.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def _unembed(top: Fd) -> None:
    """Take out what belongs to the home area alone."""
    found = os.fstat(top.fileno())
    with suppress(FileNotFoundError):
        os.unlink(IDENTITY, dir_fd=top.fileno())
    forget_unfinished(top)
    if is_there(top, BLOBS):
        delete_tree(top, BLOBS)
    os.utime(top.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def require_no_process(user: str, uid: int) -> None:
    found = processes_of(uid)
    if found:
        named = ", ".join(f"{name} ({pid})" for pid, name in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise errors.HomeInUse(
            f"{user} has running processes: {named}{more}. End them first"
            f" (loginctl terminate-user {user}; loginctl disable-linger {user})."
        )


def require_unheld(top: Fd) -> None:
    """Raise HomeInUse if anybody but us has something open in the directory."""
    where = paths.location(top.fileno())
    target = Target(frozenset(), os.fstat(top.fileno()).st_dev, where)
    found = [h for h in find_holders(target, limit_s=_HOLDERS_S) if h.pid != os.getpid()]
    if found:
        raise errors.HomeInUse(
            f"{where} is in use by {mountpoint.describe(found)}; end that, then try again."
        )
