"""Verbs check and repair: what is wrong with a home as it lies on disk, and mending it.

Looks only, but for what `Trouble.mend` does in a repair. Nothing is deleted that was not
meant to be: what has to give way is kept, in the record directory or beside its place.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import whole
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.record.names import is_device
from homemgr.storage import mountpoint, paths
from homemgr.storage.idmapping import NOBODY
from homemgr.work import check_blobs, check_files, check_inside
from homemgr.work.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.work.task import Task

#: What tells a thing that a repair moved away from what it was.
KEPT = ".kept-"


def run(task: Task) -> dict[str, object]:
    """Tell what is wrong with one home."""
    return {"findings": [trouble.told().to_json() for trouble in _home(task)]}


def repair(task: Task) -> dict[str, object]:
    """Mend what is wrong with one home; tells what was, and what was done."""
    return {"findings": [trouble.mended().to_json() for trouble in _home(task)]}


def _home(task: Task) -> Iterator[Trouble]:
    path = task.image_path
    if task.abilities.is_remote:
        yield from _inside(task, path)
        yield from _mountpoint(task)
        return
    try:
        parent = paths.open_safe_parent(path)
    except errors.FileNotFound as error:
        yield Trouble("image-missing", path, error.message)
        return
    except errors.UnsafePath as error:
        yield Trouble("base-unsafe", path, error.message)
        return
    with parent:
        if os.path.dirname(path) == task.text("base_directory"):
            yield from _base(parent)
        yield from _image(task, parent)
    yield from _mountpoint(task)


def _base(base: Fd) -> Iterator[Trouble]:
    found = os.fstat(base.fileno())
    mode = stat.S_IMODE(found.st_mode)
    if (found.st_uid, found.st_gid) == (0, 0) and not mode & 0o077:
        return

    def mend() -> None:
        os.fchown(base.fileno(), 0, 0)
        os.fchmod(base.fileno(), 0o700)

    detail = f"It belongs to {found.st_uid}:{found.st_gid} with mode {mode:04o}."
    yield Trouble("base-mode", paths.location(base.fileno()), detail, mend)


def _image(task: Task, parent: Fd) -> Iterator[Trouble]:
    path = task.image_path
    if is_device(path):
        yield from _block_device(task, path)
        return
    try:
        found = os.stat(os.path.basename(path), dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        yield Trouble("image-missing", path)
        return
    if not (stat.S_ISREG if task.storage.image_is_file else stat.S_ISDIR)(found.st_mode):
        yield Trouble("image-type", path)
        return
    if task.storage.image_is_file:
        yield from _image_file(task, path, found)
        return
    if (found.st_uid, found.st_gid) != (NOBODY, NOBODY):
        detail = f"It belongs to {found.st_uid}:{found.st_gid}."
        yield Trouble("image-owner", path, detail, _giving_back(parent, path, found))
        found = os.stat(os.path.basename(path), dir_fd=parent.fileno(), follow_symlinks=False)
    if 0 in (found.st_uid, found.st_gid):
        # Nothing of it can be used, and all the rest would be guesses.
        return
    yield from _inside(task, path)


def _inside(task: Task, path: str) -> Iterator[Trouble]:
    try:
        area = task.open_checked()
    except errors.BadPassword:
        # Not in use, or locked: what is in it is seen while it is in use.
        return
    except (errors.HostileHome, errors.UnrecognizedHomeFormat) as error:
        if task.abilities.has_key:
            yield Trouble("image-key", path, error.message)
        elif task.storage.image_is_file:
            yield Trouble("image-format", path, error.message)
        else:
            raise
        return
    except errors.BadSignature as error:
        yield Trouble("inside-signature", path, error.message)
        return
    except errors.RecordMismatch as error:
        yield Trouble("inside-other-user", path, error.message)
        return
    with area:
        yield from check_inside.troubles(task, area)
        yield from check_blobs.troubles(task, area.top)
        yield from check_files.troubles(task, area.top)


def _block_device(task: Task, path: str) -> Iterator[Trouble]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield Trouble("image-missing", path)
        return
    if not stat.S_ISBLK(found.st_mode):
        yield Trouble("image-type", path)
        return
    yield from _inside(task, path)


def _image_file(task: Task, path: str, found: os.stat_result) -> Iterator[Trouble]:
    if found.st_uid != 0 or found.st_mode & 0o022:
        detail = f"It belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}."
        yield Trouble("image-owner", path, detail)
        return
    yield from _inside(task, path)


def _giving_back(parent: Fd, path: str, seen: os.stat_result) -> Callable[[], None] | None:
    """What gives root's top directory back to nobody, if what is in it says that it was his."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    with Fd.open(os.path.basename(path), flags, dir_fd=parent.fileno()) as top:
        try:
            record = os.stat(".identity", dir_fd=top.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return None
    if 0 not in (seen.st_uid, seen.st_gid) or (record.st_uid, record.st_gid) != (NOBODY, NOBODY):
        return None

    def mend() -> None:
        with Fd.open(os.path.basename(path), DIRECTORY_FLAGS, dir_fd=parent.fileno()) as top:
            if not os.path.samestat(os.fstat(top.fileno()), seen):
                raise errors.HomeBusy(f"{path} was replaced meanwhile.")
            mode = stat.S_IMODE(os.fstat(top.fileno()).st_mode)
            os.fchown(top.fileno(), NOBODY, NOBODY)
            os.fchmod(top.fileno(), mode)

    return mend


def _mountpoint(task: Task) -> Iterator[Trouble]:
    """The directory where the home is shown: empty or missing at rest, the home while in use."""
    place = task.effective.home_directory
    if place == task.image_path:
        return
    if mountpoint.is_active(place):
        # What is mounted from an image or a server is not to be recognised by where it lies.
        if not task.storage.goes_with_mount and not _shows_home(place, task.image_path):
            yield Trouble("mount-foreign", place)
        return
    try:
        is_empty = stat.S_ISDIR(os.lstat(place).st_mode) and not os.listdir(place)
    except FileNotFoundError:
        return
    if not is_empty:
        yield Trouble("mountpoint-blocked", place, "", lambda: _move_away(place))


def _shows_home(place: str, image_path: str) -> bool:
    with Fd.open(place, DIRECTORY_FLAGS) as root:
        if whole.mode_of(root) is not None:
            return True
        try:
            return os.path.samestat(os.fstat(root.fileno()), os.lstat(image_path))
        except FileNotFoundError:
            # Still in use while its name is gone: nothing can be told.
            return True


def _move_away(place: str) -> None:
    name = os.path.basename(place)
    kept = f"{name}{KEPT}{secrets.token_hex(4)}"
    with paths.open_safe_parent(place) as parent:
        renameat2(parent.fileno(), name, parent.fileno(), kept, RENAME_NOREPLACE)
        os.fsync(parent.fileno())
