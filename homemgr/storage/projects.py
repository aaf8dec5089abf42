"""Homes held to a size by project quota: ext4, xfs and f2fs.

All files of all homes belong to nobody, so their owner does not tell one home from another, but
a project does. Each home has its own, which the top directory has on disk: no list has to be
kept beside it, and the file system itself tells which numbers are in use.

A user may give his own files, and the top directory too, another project with `chattr -p`, as
Linux has it; every resize takes them back, into a project that can be nobody else's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from homemgr.errors import HomeBusy, NotSupported
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel import quota
from homemgr.kernel.openat2 import openat2
from homemgr.kernel.project import Project, get_project, set_project
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.paths import location
from homemgr.storage.reader import ENTER, LEAVE, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.storage.reader import Step

#: Not in the way of numbers that people choose, nor of those of systemd, which are above.
_FIRST: Final = 1 << 30
_COUNT: Final = 1 << 30
_TRIES: Final = 64

#: How often files may be made while they are being given a project, before we give up.
_PASSES: Final = 20

#: What file systems without projects answer.
_NONE: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
#: A file that was there a moment ago, or one that is not for opening.
_GONE: Final = (errno.ENOENT, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.ENODEV)


def require_quota(directory: Fd) -> None:
    """Raise NotSupported where the file system holds no project to a size."""
    if quota.is_enforced(directory.fileno()):
        return
    where = location(directory.fileno())
    raise NotSupported(
        f"Home areas in {where} cannot be held to a size: its file system has no project quota."
        " xfs, ext4 with the features quota and project (`tune2fs -O quota,project DEVICE` while it"
        " is not mounted), and f2fs that was made with extra_attr, quota and project_quota, have it"
        " with the mount option prjquota."
    )


def assign_new(top: Fd, parent: Fd) -> int:
    """Give an empty home a project of its own; its number. All that is made in it is in it."""
    with _alone(parent):
        number = _unused(top)
        set_project(top.fileno(), Project(number, is_inherited=True))
    return number


def assign(top: Fd, parent: Fd) -> int:
    """The project of a home, which all its files have afterwards; one of its own if it has none.

    Its user may have given it one that is not of homes, or that of a home beside it: a limit of
    those is not his.

    May be repeated after a kill, and while the home is in use: what is made meanwhile inherits
    from directories that have it already. Raises HomeBusy if there is no end of that.
    """
    found = get_project(top.fileno())
    is_own = _is_ours(found) and found.is_inherited and not _is_shared(top, parent, found.number)
    number = found.number if is_own else assign_new(top, parent)
    _move_all(top, number)
    return number


def hand_over(old: Fd, new: Fd) -> None:
    """Give all of ``new`` the project of ``old``, which is nobody's home any more and has none.

    May be repeated after a kill. Nothing is done where there are no projects.
    """
    try:
        project = get_project(old.fileno())
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return
    if not _is_ours(project):
        return
    _move_all(new, project.number)
    # The top is the last to forget it: until then it can be done again.
    for step in walk(old):
        if step.path:
            _is_moved(step, 0)
    _move(old.fileno(), Project(0, is_inherited=False))


def _move_all(top: Fd, number: int) -> None:
    for _ in range(_PASSES):
        if not sum(_is_moved(step, number) for step in walk(top)):
            return
    raise HomeBusy(f"Files are made in {location(top.fileno())} faster than they are counted.")


def usage(top: Fd) -> quota.Usage | None:
    """What the home takes, if it has a project and the file system counts."""
    try:
        project = get_project(top.fileno())
        if not _is_ours(project) or not project.is_inherited:
            return None
        return quota.usage(top.fileno(), project.number)
    except OSError as error:
        if error.errno not in (*quota.NONE, *_NONE):
            raise
        return None


@contextmanager
def _alone(parent: Fd) -> Iterator[None]:
    """Keep others from choosing a number in the same place; who is killed has the lock no more."""
    with Fd.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent.fileno()) as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        yield


def _unused(top: Fd) -> int:
    """A number that no file has, and of which no limit is left."""
    for _ in range(_TRIES):
        number = _FIRST + secrets.randbelow(_COUNT)
        if not any(quota.usage(top.fileno(), number)):
            return number
    raise NotSupported(f"No project number is free for {location(top.fileno())}.")


def _is_ours(project: Project) -> bool:
    """Whether it is one that we choose for homes."""
    return _FIRST <= project.number < _FIRST + _COUNT


def _is_shared(top: Fd, parent: Fd, number: int) -> bool:
    """Whether a home beside this one has the project too."""
    own = os.fstat(top.fileno())
    for name in os.listdir(parent.fileno()):
        # What is no directory, is mounted, or has just gone is no home that is counted here.
        with (
            suppress(OSError),
            openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_GUARDED) as other,
        ):
            is_same = os.path.samestat(own, os.fstat(other.fileno()))
            if not is_same and get_project(other.fileno()).number == number:
                return True
    return False


def _is_moved(step: Step, number: int) -> bool:
    """Whether what a walk has met had another project until now."""
    if step.what == LEAVE:
        return False
    if step.what == ENTER:
        return _move(step.fd, Project(number, is_inherited=bool(number)))
    if not stat.S_ISREG(step.stat.st_mode):
        # Links, fifos and sockets cannot be opened for it; they take an inode and no more.
        return False
    try:
        flags = os.O_RDONLY | os.O_NOATIME | GUARDED_FLAGS
        with openat2(step.parent, os.fsdecode(step.name), flags, RESOLVE_GUARDED) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            return _move(file.fileno(), Project(number, is_inherited=False))
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False


def _move(fd: int, project: Project) -> bool:
    if get_project(fd) == project:
        return False
    try:
        set_project(fd, project)
    except PermissionError as error:
        _refuse_marked(fd, error)
    return True


def _refuse_marked(fd: int, error: OSError) -> NoReturn:
    raise NotSupported(
        f"{location(fd)} cannot be counted: it is marked immutable or append-only (see chattr(1))."
    ) from error
