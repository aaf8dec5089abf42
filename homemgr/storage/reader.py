"""Walk through a home that somebody else may be changing, and read what is there.

Depth first, names in the order of their bytes, every step by descriptor: no link is
followed, no mount entered, no fifo waited for. Depth costs no descriptors: far above the
present directory they are closed, and opened again through `..` on the way back, if that
still is the same directory. What vanishes on the way is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from homemgr.errors import HomeBusy, HomeError, HostileHome, NotSupported
from homemgr.files import Fd
from homemgr.kernel.file_flags import get_flags
from homemgr.kernel.openat2 import open_number, way_to_open
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.sparse import data_runs as data_runs
from homemgr.transfer import flags
from homemgr.transfer.entry import MAX_PATH, Entry, Kind
from homemgr.transfer.selection import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.kernel.openat2 import Way
    from homemgr.transfer.selection import Selection

#: What a step is: into a directory, past anything else, out of a directory.
ENTER: Final = 1
ENTRY: Final = 2
LEAVE: Final = 3

#: Directories that are open at once.
_OPEN = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
_CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOATIME
_AS_DIRECTORY = way_to_open(_DIRECTORY, RESOLVE_GUARDED)
_AS_CONTENT = way_to_open(_CONTENT, RESOLVE_GUARDED)

#: Nothing has the name, or something of another kind: the last two are sockets and devices.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.ENODEV)

#: How xfs stores ACLs, and shows them a second time to who may see it (fs/xfs/xfs_acl.c).
_SHOWN_TWICE = ("trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT")

_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}


#: What may fail because of a file, and does not say of which.
NAMELESS: Final = (OSError, NotSupported)
#: What a disk says that is damaged: unreadable, or no file system of sense.
_OF_DISK: Final = (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA)


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
    #: As of the moment it was met: the same for ENTER and LEAVE.
    stat: os.stat_result


#: Makes one of a tuple of all its fields, in half the time.
_new_step = tuple.__new__


class _Level:
    """A directory on the way down."""

    __slots__ = ("fd", "name", "names", "only", "stat")

    def __init__(
        self, fd: Fd, name: bytes, found: os.stat_result, only: Selection | None = ALL
    ) -> None:
        #: Closed while the walk is far below.
        self.fd = fd
        self.name = name
        self.stat = found
        self.only = only
        #: Still to be visited, the next one last.
        self.names: list[bytes] = []


def walk(
    top: Fd,
    *,
    leave_out: frozenset[bytes] = frozenset(),
    only: Selection | None = ALL,
    denied: Callable[[bytes], None] | None = None,
) -> Iterator[Step]:
    """Every name below ``top``, and ``top`` itself first and last; not what is in ``leave_out``.

    With ``only`` nothing else than what is selected, and the directories on the way there.
    ``denied`` gets the path of each directory that may not be read, which is an error else.
    `HostileHome` if a directory is moved away under our feet, or a path is longer than
    `MAX_PATH`; `HomeBusy` if something is mounted inside.
    """
    begin = Fd.open(".", _DIRECTORY, dir_fd=top.fileno())
    levels = [_Level(begin, b"", os.fstat(begin.fileno()), only)]
    try:
        levels[0].names = _names(levels[0])
        yield Step(ENTER, b"", b"", -1, begin.fileno(), levels[0].stat)
        # Only the present one: those of all directories on the way would be quadratic.
        path = b""
        while levels:
            level = levels[-1]
            names, parent, start = level.names, level.fd.fileno(), path and path + b"/"
            # Of what each name costs here a walk through a home is made.
            while names:
                name = names.pop()
                here = start + name
                if here in leave_out:
                    continue
                try:
                    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    if not stat.S_ISDIR(found.st_mode):
                        yield _new_step(Step, (ENTRY, name, here, parent, -1, found))
                        continue
                    _enter(levels, name, here, found)
                except (FileNotFoundError, FileVanished):
                    continue
                except PermissionError:
                    if denied is None:
                        raise
                    denied(here)
                    continue
                except OSError as error:
                    note_path(error, here)
                    raise
                path = here
                if len(levels) > _OPEN:
                    levels[-1 - _OPEN].fd.close()
                yield Step(ENTER, name, path, parent, levels[-1].fd.fileno(), found)
                break
            else:
                yield from _leave(levels, path)
                path = path[: -1 - len(level.name)]
    finally:
        for level in levels:
            level.fd.close()


def _names(level: _Level) -> list[bytes]:
    """All names to be visited in a directory, the last one first."""
    if level.only is not ALL:
        return sorted(level.only, reverse=True)
    with os.scandir(level.fd.fileno()) as entries:
        # One by one: a second list of a million names would be another hundred megabytes.
        names = [os.fsencode(entry.name) for entry in entries]
    names.sort(reverse=True)
    return names


def _enter(levels: list[_Level], name: bytes, path: bytes, expected: os.stat_result) -> None:
    """Step into the directory ``name``, if it still is the expected one."""
    if len(path) > MAX_PATH:
        raise HostileHome(f"There is a path of more than {MAX_PATH} bytes: {path[:64]!r}...")
    parent = levels[-1].fd.fileno()
    only = ALL if levels[-1].only is ALL else levels[-1].only[name]
    level = _Level(_open(parent, name, path, _AS_DIRECTORY), name, expected, only)
    try:
        if not os.path.samestat(os.fstat(level.fd.fileno()), expected):
            raise FileVanished
        level.names = _names(level)
    except BaseException:
        level.fd.close()
        raise
    levels.append(level)


def _leave(levels: list[_Level], path: bytes) -> Iterator[Step]:
    """Step out of the deepest directory, and have the one above open again."""
    level = levels[-1]
    above = levels[-2] if len(levels) > 1 else None
    if above is not None and not above.fd.is_open:
        above.fd = _up(level.fd, above.stat, path)
    parent = above.fd.fileno() if above is not None else -1
    yield Step(LEAVE, level.name, path, parent, level.fd.fileno(), level.stat)
    levels.pop()
    level.fd.close()


def _up(fd: Fd, expected: os.stat_result, path: bytes) -> Fd:
    """The directory above, through `..`; believed only if it is the one we came from."""
    parent = Fd.open("..", _DIRECTORY, dir_fd=fd.fileno())
    if not os.path.samestat(os.fstat(parent.fileno()), expected):
        parent.close()
        raise HostileHome(
            f"Directory {os.fsdecode(path)!r} was moved away while it was being read;"
            " run the same command again."
        )
    return parent


def _open(parent: int, name: bytes, path: bytes, how: Way) -> Fd:
    try:
        return Fd.opened(open_number(parent, name, how))
    except OSError as error:
        if error.errno in _GONE:
            raise FileVanished from error
        if error.errno == errno.EXDEV:
            # To leave it out would be to lose it.
            raise HomeBusy(f"Something is mounted at {os.fsdecode(path)!r}.") from error
        raise


def note_path(error: OSError | HomeError, path: bytes) -> None:
    """Have a failure say that it was met at ``path``, unless it is of another place, or a line."""
    is_of_file = not isinstance(error, OSError) or error.errno in _OF_DISK
    if is_of_file and not getattr(error, "__notes__", ()):
        error.add_note(f"at {os.fsdecode(path) or '.'!r} in the home area")


def open_content(step: Step) -> Fd:
    """The regular file of a step, to be read. Raises FileVanished if it is another one by now."""
    _, name, path, parent, _, expected = step
    fd = _open(parent, name, path, _AS_CONTENT)
    found = os.fstat(fd.fileno())
    if (found.st_ino, found.st_dev) != (expected.st_ino, expected.st_dev) or not stat.S_ISREG(
        found.st_mode
    ):
        fd.close()
        raise FileVanished
    return fd


def read_entry(step: Step, opened: Fd | None = None) -> Entry:
    """Everything about the name but its content. Raises FileVanished.

    ``opened`` is what it was opened as, if it was: asking that is quicker than asking by name.
    The attributes may be those of a later moment than ``step.stat``: a change between the
    two changes the proof of the file too, and the next walk sees it.
    """
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
        _described(step, kind, opened),
    )


def _described(step: Step, kind: Kind, opened: Fd | None) -> tuple[tuple[bytes, bytes], ...]:
    """All attributes, and the flags as one of them."""
    found = attributes(step, opened)
    if kind == Kind.DIRECTORY:
        bits = get_flags(step.fd)
    elif kind != Kind.FILE:
        return found
    elif opened is not None:
        bits = get_flags(opened.fileno())
    else:
        with open_content(step) as file:
            bits = get_flags(file.fileno())
    added = flags.attribute(bits)
    return tuple(sorted(found + added)) if added else found


def _link_text(step: Step) -> bytes:
    try:
        return os.readlink(step.name, dir_fd=step.parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            raise FileVanished from error
        raise


def attributes(step: Step, opened: Fd | None = None) -> tuple[tuple[bytes, bytes], ...]:
    """All extended attributes: by descriptor, or of what is not open through its directory.

    Raises FileVanished.
    """
    is_open = opened is not None or step.what != ENTRY
    where: int | bytes
    if opened is not None:
        where = opened.fileno()
    elif is_open:
        where = step.fd
    else:
        # The directory is the one we hold; the name's own link is not followed.
        where = b"/proc/self/fd/%d/%b" % (step.parent, step.name)
    try:
        names = os.listxattr(where, follow_symlinks=is_open)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        _refuse(error, step)
    if not names:
        return ()
    found = []
    for name in names:
        if name in _SHOWN_TWICE:
            continue
        try:
            value = os.getxattr(where, name, follow_symlinks=is_open)
        except OSError as error:
            # Taken away since it was listed; or listed, but nothing that can be read.
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                continue
            _refuse(error, step)
        found.append((os.fsencode(name), value))
    return tuple(sorted(found))


def _refuse(error: OSError, step: Step) -> NoReturn:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        raise FileVanished from error
    if error.errno in (errno.E2BIG, errno.ERANGE):
        # The kernel lists at most XATTR_LIST_MAX bytes of names, xfs and btrfs store more.
        raise HostileHome(
            f"{os.fsdecode(step.path)!r} has more extended attributes than can be read."
        ) from error
    raise error
