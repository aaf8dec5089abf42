"""Walk through a home that somebody else may be changing, and read what is there.

Depth first, names in the order of their bytes, every step by descriptor: no link is followed,
no mount entered, no fifo waited for. Depth costs no descriptors: far above the present
directory they are closed, and on the way back opened again as `..`, if that still is the same
directory. What vanishes on the way is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import HostileHome
from homemgr.files import Fd
from homemgr.kernel.openat2 import openat2
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.transfer.entry import Entry, Kind, join

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a step is: into a directory, past anything else, out of a directory.
ENTER: Final = 1
ENTRY: Final = 2
LEAVE: Final = 3

#: Directories that are open at once.
_OPEN = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
_CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOATIME
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ESTALE)

_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}


class FileVanished(Exception):
    """What was listed is not there any more, or something else is."""


class Step(NamedTuple):
    """One step of a walk; the descriptors are borrowed and valid until the next step."""

    what: int
    name: bytes
    path: bytes
    #: The directory that holds it; -1 for the top.
    parent: int
    #: The directory itself, for ENTER and LEAVE; -1 otherwise.
    fd: int
    stat: os.stat_result


class _Level:
    """A directory on the way down."""

    __slots__ = ("fd", "identity", "name", "names", "path", "stat")

    def __init__(self, fd: Fd, name: bytes, path: bytes, found: os.stat_result) -> None:
        #: Closed while the walk is far below.
        self.fd = fd
        self.name = name
        self.path = path
        self.stat = found
        self.identity = (found.st_dev, found.st_ino)
        #: Still to be visited, the next one last.
        self.names = sorted(map(os.fsencode, os.listdir(fd.fileno())), reverse=True)


def walk(top: Fd, *, leave_out: frozenset[bytes] = frozenset()) -> Iterator[Step]:
    """Every name below ``top``, and ``top`` itself first and last; not what is in ``leave_out``."""
    levels: list[_Level] = []
    try:
        begin = Fd.open(".", _DIRECTORY, dir_fd=top.fileno())
        levels.append(_Level(begin, b"", b"", os.fstat(begin.fileno())))
        yield Step(ENTER, b"", b"", -1, begin.fileno(), levels[0].stat)
        while levels:
            level = levels[-1]
            if not level.names:
                yield from _leave(levels)
                continue
            name = level.names.pop()
            path = join(level.path, name)
            if path in leave_out:
                continue
            parent = level.fd.fileno()
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    yield Step(ENTRY, name, path, parent, -1, found)
                    continue
                below = _Level(_down(parent, name, found), name, path, found)
            except (FileNotFoundError, FileVanished):
                continue
            levels.append(below)
            if len(levels) > _OPEN:
                levels[-1 - _OPEN].fd.close()
            yield Step(ENTER, name, path, parent, below.fd.fileno(), found)
    finally:
        for level in levels:
            level.fd.close()


def _leave(levels: list[_Level]) -> Iterator[Step]:
    """Step out of the deepest directory, and have the one above open again."""
    level = levels[-1]
    above = levels[-2] if len(levels) > 1 else None
    if above is not None and not above.fd.is_open:
        above.fd = _up(level.fd, above)
    parent = above.fd.fileno() if above is not None else -1
    yield Step(LEAVE, level.name, level.path, parent, level.fd.fileno(), level.stat)
    levels.pop()
    level.fd.close()


def _down(parent: int, name: bytes, expected: os.stat_result) -> Fd:
    fd = _open(parent, name, _DIRECTORY)
    if not os.path.samestat(os.fstat(fd.fileno()), expected):
        fd.close()
        raise FileVanished
    return fd


def _up(fd: Fd, above: _Level) -> Fd:
    """The directory above, through `..`; believed only if it is the one we came from."""
    parent = Fd.open("..", _DIRECTORY, dir_fd=fd.fileno())
    found = os.fstat(parent.fileno())
    if (found.st_dev, found.st_ino) != above.identity:
        parent.close()
        raise HostileHome(
            f"Directory {os.fsdecode(above.path)!r} was moved away while it was being read;"
            " run the same command again."
        )
    return parent


def _open(parent: int, name: bytes, flags: int) -> Fd:
    try:
        return openat2(parent, os.fsdecode(name), flags, RESOLVE_GUARDED)
    except OSError as error:
        if error.errno in _GONE:
            raise FileVanished from error
        raise


def open_content(step: Step) -> Fd:
    """The regular file of a step, to be read. Raises FileVanished if it is another one by now."""
    fd = _open(step.parent, step.name, _CONTENT)
    found = os.fstat(fd.fileno())
    if not stat.S_ISREG(found.st_mode) or not os.path.samestat(found, step.stat):
        fd.close()
        raise FileVanished
    return fd


def data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: offset and length of each run up to ``size``, see lseek(2)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end - start
        at = end


def read_entry(step: Step) -> Entry:
    """Everything about the name but its content. Raises FileVanished."""
    found = step.stat
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    target = b""
    if kind == Kind.SYMLINK:
        target = _link_text(step)
    elif kind in (Kind.CHARACTER, Kind.BLOCK):
        target = b"%d:%d" % (os.major(found.st_rdev), os.minor(found.st_rdev))
    return Entry(
        kind,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        found.st_atime_ns,
        found.st_size if kind == Kind.FILE else 0,
        target,
        _xattrs(step),
    )


def _link_text(step: Step) -> bytes:
    try:
        return os.readlink(step.name, dir_fd=step.parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            raise FileVanished from error
        raise


def _xattrs(step: Step) -> tuple[tuple[bytes, bytes], ...]:
    """All extended attributes: by descriptor, or through the directory of what is not open."""
    where: int | bytes = step.fd
    if step.what == ENTRY:
        # The directory is the one we hold; the name's own link is not followed.
        where = b"/proc/self/fd/%d/%b" % (step.parent, step.name)
    follow = step.what != ENTRY
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise FileVanished from error
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in names:
        with suppress(_NoSuchAttribute):
            found.append((os.fsencode(name), _value(where, name, follow=follow)))
    return tuple(sorted(found))


class _NoSuchAttribute(Exception):
    pass


def _value(where: int | bytes, name: str, *, follow: bool) -> bytes:
    try:
        return os.getxattr(where, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            raise _NoSuchAttribute from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise FileVanished from error
        raise
