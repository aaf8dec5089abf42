"""Write a tree that arrives from elsewhere: exact in all metadata, nobody's from the first byte.

The tree lies where only root can reach it, yet its content is somebody else's choice: every
step is one name below an open directory, and no link is followed. What was there before is
replaced in one step, never changed in place, so that a kill leaves the old or the new.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import NotSupported, StreamError
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel.file_flags import get_flags
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import openat2
from homemgr.storage.file_writer import FileWriter as FileWriter
from homemgr.storage.file_writer import part_name, put_in_place, write_new
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.ledger import proof
from homemgr.storage.metadata import apply, apply_to_name, has_xattr
from homemgr.storage.tree import delete_tree
from homemgr.transfer import flags
from homemgr.transfer.entry import Entry, Kind, check_name, split

if TYPE_CHECKING:
    from types import TracebackType

#: Directories that are open at once.
_OPEN = 64

#: One openat2(2) takes at most PATH_MAX bytes; longer paths go in steps.
_STEP_BYTES = 4000

#: What an open says if the sender is wrong about what is there.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO)


class _Level:
    """A directory on the way down, and what it is to look like in the end."""

    __slots__ = ("entry", "fd", "identity", "passes_on", "times")

    def __init__(self, fd: Fd, entry: Entry | None) -> None:
        found = os.fstat(fd.fileno())
        self.fd = fd
        self.entry = entry
        self.times = (found.st_atime_ns, found.st_mtime_ns)
        self.identity = (found.st_dev, found.st_ino)
        #: Whether what is made in it gets an ACL or flags, which then are to be taken away again.
        self.passes_on = bool(
            has_xattr(fd.fileno(), "system.posix_acl_default")
            or get_flags(fd.fileno()) & flags.ALL_BITS
        )


class TreeWriter:
    """Writes below ``top``, as nobody, in the thread that opened its ``with`` block.

    Names that are none raise `StreamError`, as does a step into what is no directory.
    """

    def __init__(self, top: Fd) -> None:
        """Borrow ``top``."""
        self._top = top
        self._levels: list[_Level] = []
        self._closing = ExitStack()

    def __enter__(self) -> TreeWriter:
        """Access files as nobody until the end of the block."""
        self._closing.enter_context(filesystem_identity(NOBODY, NOBODY))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is open; directories that were not left keep what they have so far."""
        for level in self._levels:
            level.fd.close()
        self._levels.clear()
        self._closing.close()

    # -- directories ---------------------------------------------------------------------

    def enter(self, name: bytes, entry: Entry | None) -> None:
        """Go into directory ``name``, made if need be; the first is the top, whatever its name.

        ``entry`` is what the directory looks like once it is left; None: as it did before.
        """
        if not self._levels:
            fd = Fd.open(".", DIRECTORY_FLAGS, dir_fd=self._top.fileno())
        else:
            check_name(name)
            if entry is not None:
                self._make_directory(name)
            fd = _open_directory(self._here.fileno(), name)
        self._levels.append(_Level(fd, entry))
        if len(self._levels) > _OPEN:
            self._levels[-1 - _OPEN].fd.close()

    def _make_directory(self, name: bytes) -> None:
        """Have a directory ``name`` where nothing or something else may be."""
        parent = self._here.fileno()
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)

    def leave(self) -> None:
        """Go back up; only now the directory gets its own metadata, which work in it changes."""
        level = self._levels.pop()
        with level.fd:
            if self._levels and not self._levels[-1].fd.is_open:
                self._levels[-1].fd = _open_above(level.fd, self._levels[-1].identity)
            if level.entry is None:
                os.utime(level.fd.fileno(), ns=level.times)
            else:
                apply(level.fd.fileno(), level.entry)

    @property
    def _here(self) -> Fd:
        return self._levels[-1].fd

    # -- what is in them -------------------------------------------------------------------

    def write_small(self, name: bytes, entry: Entry, data: bytes | memoryview) -> bytes:
        """Make a file of ``data``; gives its proof for the ledger."""
        check_name(name)
        if not (entry.xattrs or self._levels[-1].passes_on):
            with suppress(FileExistsError):
                return proof(write_new(self._here.fileno(), name, entry, data))
        with self.begin(name, entry) as file:
            file.data(0, data)
            return file.finish()

    def begin(self, name: bytes, entry: Entry, *, copy_of: bytes | None = None) -> FileWriter:
        """Begin a file; with ``copy_of`` its content is at first that of the file at that path."""
        check_name(name)
        file = FileWriter(self._here, name, entry)
        try:
            file.prepare()
            if copy_of is not None:
                with self._open_file(copy_of) as source:
                    file.copy(source.fileno())
        except BaseException:
            file.close()
            raise
        return file

    def same(self, name: bytes, entry: Entry) -> bytes:
        """Give the file ``name`` other metadata; gives its proof for the ledger."""
        check_name(name)
        with _open_file(self._here.fileno(), name) as file:
            return proof(apply(file.fileno(), entry))

    def node(self, name: bytes, entry: Entry) -> bytes:
        """Make a symbolic link, a fifo or a further name of a file; gives its proof."""
        check_name(name)
        try:
            self._make_node(name, entry)
        except FileExistsError:
            part = part_name()
            self._make_node(part, entry)
            try:
                put_in_place(self._here, part, name)
            finally:
                # Between two names of one file a rename does nothing.
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=self._here.fileno())
        return proof(os.stat(name, dir_fd=self._here.fileno(), follow_symlinks=False))

    def _make_node(self, name: bytes, entry: Entry) -> None:
        parent = self._here.fileno()
        if entry.kind == Kind.LINK:
            self._link(name, entry.target)
            return
        if entry.kind == Kind.SYMLINK:
            _make_symlink(parent, name, entry.target)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
        apply_to_name(parent, name, entry)

    def _link(self, name: bytes, target: bytes) -> None:
        directory, first = split(target)
        check_name(first)
        with open_directory(self._top, directory) as source:
            try:
                os.link(
                    first,
                    name,
                    src_dir_fd=source.fileno(),
                    dst_dir_fd=self._here.fileno(),
                    follow_symlinks=False,
                )
            except (FileNotFoundError, PermissionError) as error:
                raise StreamError(f"There is no file {target!r} to give a name to.") from error

    def delete(self, name: bytes) -> None:
        """Take ``name`` away, with all below it."""
        check_name(name)
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._here.fileno())
            except IsADirectoryError:
                delete_tree(self._here, os.fsdecode(name))

    def _open_file(self, path: bytes) -> Fd:
        directory, name = split(path)
        check_name(name)
        with open_directory(self._top, directory) as parent:
            return _open_file(parent.fileno(), name)


def _make_symlink(parent: int, name: bytes, target: bytes) -> None:
    try:
        os.symlink(target, name, dir_fd=parent)
    except OSError as error:
        # xfs takes 1023 bytes, ext4 a block.
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise NotSupported(
            f"The file system of the home areas cannot store the symbolic link {name!r}, which"
            f" leads to a path of {len(target)} bytes."
        ) from error


def open_directory(top: Fd, path: bytes) -> Fd:
    """The directory at ``path`` below ``top``, however long the path is; follows no link.

    `StreamError` if there is none.
    """
    fd = Fd.open(".", DIRECTORY_FLAGS, dir_fd=top.fileno())
    while path:
        cut = len(path) if len(path) <= _STEP_BYTES else path.rindex(b"/", 0, _STEP_BYTES)
        step, path = path[:cut], path[cut + 1 :]
        with fd:
            below = _open_directory(fd.fileno(), step)
        fd = below
    return fd


def _open_directory(parent: int, path: bytes) -> Fd:
    return _open(parent, path, DIRECTORY_FLAGS, "directory")


def _open_file(parent: int, name: bytes) -> Fd:
    file = _open(parent, name, os.O_RDONLY | GUARDED_FLAGS, "file")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise StreamError(f"There is no file {name!r}: something else has that name.")
    return file


def _open(parent: int, path: bytes, how: int, what: str) -> Fd:
    try:
        return openat2(parent, os.fsdecode(path), how, RESOLVE_GUARDED)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        text = os.strerror(error.errno)
        raise StreamError(f"There is no {what} {path!r}: {text}.") from error


def _open_above(fd: Fd, expected: tuple[int, int]) -> Fd:
    above = Fd.open("..", DIRECTORY_FLAGS, dir_fd=fd.fileno())
    found = os.fstat(above.fileno())
    if (found.st_dev, found.st_ino) != expected:
        above.close()
        raise StreamError("The tree that arrives was changed by somebody else.")
    return above
