"""Bring single files back from a snapshot into a home, with the rights of its user only.

Both sides are somebody's who may be hostile, and the home may change meanwhile: every step is
by descriptor, no link is followed, no mount entered, nothing outside reached. Whoever calls
accesses files as the user, without capabilities; what the user may not do fails. Nothing is
replaced unless that is asked for, and then in one step.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import FileNotFound, HostileHome, InvalidArgs, PathExists, StreamError
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel import reflink
from homemgr.kernel.openat2 import openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.storage import reader
from homemgr.storage.file_writer import part_name
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.metadata import apply
from homemgr.storage.sparse import copy_data
from homemgr.transfer.entry import Entry, Kind, check_path, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.reader import Step

#: Attributes that are a user's own to give.
_OWN: Final = (b"user.", b"system.posix_acl_")
#: Permissions of files; of directories also set-gid and sticky, which say how to share them.
_ACCESS, _OF_DIRECTORIES = 0o777, 0o3777

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
#: Something in the way, or what the path leads through is a link or another mount.
_NO_WAY: Final = (errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
#: Directories that may be open at once, each being one level.
_DEEPEST: Final = 500


class FileRestore:
    """Restores below ``target`` what is below ``source``; both are borrowed."""

    def __init__(
        self,
        source: Fd,
        target: Fd,
        *,
        replaces: bool,
        note: Callable[[str, bytes], None],
        tell: Callable[[int], None],
    ) -> None:
        """``note`` hears what stays as it is: ``exists``, ``special``, ``denied``, and its path.

        ``tell`` gets the number of names so far; what it raises ends the work.
        """
        self._source = source
        self._target = target
        self._replaces = replaces
        self._note = note
        self._tell = tell
        self._seen = 0
        #: How many files, links and directories were put there.
        self.count = 0

    def restore(self, path: bytes) -> None:
        """Bring back ``path``, a file or a whole directory.

        Raises InvalidArgs, FileNotFound if the snapshot has none, PathExists for a file that is
        there already, HostileHome if the way leads through a link or a mount.
        """
        try:
            check_path(path)
        except StreamError as error:
            raise InvalidArgs(
                f"{os.fsdecode(path)!r} is no path below the home: expected names joined by /,"
                " without '.' and '..'."
            ) from error
        directory, name = split(path)
        with ExitStack() as opened:
            source = opened.enter_context(_open(self._source, directory, "the snapshot"))
            try:
                found = os.stat(name, dir_fd=source.fileno(), follow_symlinks=False)
            except FileNotFoundError as error:
                raise _missing(path) from error
            target = opened.enter_context(self._way(directory))
            if stat.S_ISDIR(found.st_mode):
                self._tree(path, target, name)
                return
            before = self.count
            step = reader.Step(reader.ENTRY, name, path, source.fileno(), -1, found)
            if not self._entry(step, target) and self.count == before:
                raise PathExists(f"{os.fsdecode(path)!r} exists already; --force replaces it.")

    def _way(self, directory: bytes) -> Fd:
        """The directory in the home, made as it is in the snapshot where it is missing."""
        here = Fd.open(".", DIRECTORY_FLAGS, dir_fd=self._target.fileno())
        there = Fd.open(".", DIRECTORY_FLAGS, dir_fd=self._source.fileno())
        try:
            for name in directory.split(b"/") if directory else ():
                below = _open(there, name, "the snapshot")
                there.close()
                there = below
                made = _make_directory(here, name)
                with ExitStack() as on_failure:
                    next_one = _open(here, name, "the home")
                    on_failure.callback(next_one.close)
                    if made:
                        self._dress(there, next_one)
                    on_failure.pop_all()
                here.close()
                here = next_one
            return here.duplicate()
        finally:
            here.close()
            there.close()

    def _dress(self, source: Fd, target: Fd) -> None:
        step = reader.Step(reader.ENTER, b"", b"", -1, source.fileno(), os.fstat(source.fileno()))
        apply(target.fileno(), _own(reader.read_entry(step), target))

    # -- a whole directory -------------------------------------------------------------------

    def _tree(self, path: bytes, parent: Fd, name: bytes) -> None:
        above, last = split(path)
        with (
            _open(self._source, above, "the snapshot") as way,
            _open(way, last, "the snapshot") as top,
            ExitStack() as opened,
        ):
            #: The directories on the way down in the home; None where something else is.
            levels: list[Fd | None] = []
            opened.callback(_close_all, levels)
            made: list[bool] = []

            def denied(below: bytes) -> None:
                self._note("denied", path + b"/" + below)

            for step in reader.walk(top, denied=denied):
                here = path + b"/" + step.path if step.path else path
                if step.what == reader.ENTER:
                    if len(levels) > _DEEPEST:
                        raise HostileHome(f"There are more than {_DEEPEST} directories in another.")
                    at = (levels[-1], step.name) if levels else (parent, name)
                    fd, is_new = self._entered(here, *at)
                    levels.append(fd)
                    made.append(is_new)
                elif step.what == reader.LEAVE:
                    _leave(step, levels.pop(), is_new=made.pop())
                elif (into := levels[-1]) is not None and not self._entry(
                    step._replace(path=here), into
                ):
                    self._note("exists", here)

    def _entered(self, path: bytes, parent: Fd | None, name: bytes) -> tuple[Fd | None, bool]:
        """The directory in the home, and whether it is new."""
        self._told()
        if parent is None:
            return None, False
        try:
            is_new = _make_directory(parent, name)
            fd = openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_GUARDED)
        except PermissionError:
            self._note("denied", path)
            return None, False
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            self._note("exists", path)
            return None, False
        self.count += is_new
        return fd, is_new

    # -- one name ----------------------------------------------------------------------------

    def _entry(self, step: Step, target: Fd) -> bool:
        """Bring one name back that is no directory; False if something has it, and keeps it."""
        self._told()
        if not self._replaces and _is_there(target, step.name):
            return False
        part = part_name()
        try:
            if not self._made(step, target, part):
                self._note("special", step.path)
                return True
            is_put = self._put(target, part, step.name)
        except reader.FileVanished:
            return True
        except PermissionError:
            self._note("denied", step.path)
            return True
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=target.fileno())
        self.count += is_put
        return is_put

    @staticmethod
    def _made(step: Step, target: Fd, part: bytes) -> bool:
        """Make a copy under the name ``part``; False if it is of a kind that is left out."""
        parent = target.fileno()
        if stat.S_ISREG(step.stat.st_mode):
            with (
                reader.open_content(step) as source,
                Fd(os.open(part, _NEW, 0o600, dir_fd=parent)) as copy,
            ):
                _copy_content(source, copy)
                apply(copy.fileno(), _own(reader.read_entry(step, source), copy))
            return True
        if stat.S_ISLNK(step.stat.st_mode):
            os.symlink(os.readlink(step.name, dir_fd=step.parent), part, dir_fd=parent)
        elif stat.S_ISFIFO(step.stat.st_mode):
            os.mkfifo(part, step.stat.st_mode & _ACCESS, dir_fd=parent)
        else:
            return False
        times = (step.stat.st_atime_ns, step.stat.st_mtime_ns)
        os.utime(part, ns=times, dir_fd=parent, follow_symlinks=False)
        return True

    def _put(self, target: Fd, part: bytes, name: bytes) -> bool:
        """Give ``part`` its name; False if something else keeps that."""
        parent = target.fileno()
        try:
            if self._replaces:
                os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            else:
                names = os.fsdecode(part), os.fsdecode(name)
                renameat2(parent, names[0], parent, names[1], RENAME_NOREPLACE)
        except (FileExistsError, IsADirectoryError):
            return False
        return True

    def _told(self) -> None:
        self._seen += 1
        if self._seen % 100 == 0:
            self._tell(self._seen)


def _leave(step: Step, fd: Fd | None, *, is_new: bool) -> None:
    """Go out of a directory, which gets its metadata only now, as work in it changes them."""
    if fd is not None:
        with fd:
            if is_new:
                apply(fd.fileno(), _own(reader.read_entry(step), fd))


def _copy_content(source: Fd, copy: Fd) -> None:
    try:
        reflink.clone(source.fileno(), copy.fileno())
    except OSError:
        copy_data(source.fileno(), copy.fileno())
        os.ftruncate(copy.fileno(), os.fstat(source.fileno()).st_size)


def _own(entry: Entry, target: Fd) -> Entry:
    """What the user may give to a file of his own."""
    found = os.fstat(target.fileno())
    bits = _OF_DIRECTORIES if entry.kind == Kind.DIRECTORY else _ACCESS
    return entry._replace(
        uid=found.st_uid,
        gid=found.st_gid,
        mode=entry.mode & bits,
        xattrs=tuple(x for x in entry.xattrs if x[0].startswith(_OWN)),
    )


def _make_directory(parent: Fd, name: bytes) -> bool:
    """Whether the directory was missing, and is there now, for its user alone."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent.fileno())
    except FileExistsError:
        return False
    return True


def _open(top: Fd, path: bytes, what: str) -> Fd:
    try:
        return openat2(top.fileno(), path or b".", DIRECTORY_FLAGS, RESOLVE_GUARDED)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        if error.errno not in _NO_WAY:
            raise
        raise HostileHome(
            f"{os.fsdecode(path)!r} in {what} is no directory of the home itself"
            f" ({os.strerror(error.errno)}): links are not followed, and mounts not entered."
        ) from error


def _missing(path: bytes) -> FileNotFound:
    return FileNotFound(f"The snapshot has no {os.fsdecode(path)!r}.")


def _close_all(levels: list[Fd | None]) -> None:
    for fd in levels:
        if fd is not None:
            fd.close()


def _is_there(directory: Fd, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
