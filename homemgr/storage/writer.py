"""Write a tree that arrives from elsewhere: exact in all metadata, nobody's from the first byte.

The tree lies where only root can reach it, yet its content is somebody else's choice: every
step is one name below an open directory, and no link is followed. A file that was there before is
replaced in one step, never changed in place, so that a kill leaves the old or the new.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel import reflink
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import openat2
from homemgr.storage.guarded import RESOLVE_GUARDED
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.ledger import proof
from homemgr.storage.metadata import apply, apply_to_name
from homemgr.storage.reader import data_runs
from homemgr.storage.tree import delete_tree
from homemgr.transfer.entry import Entry, Kind, split

if TYPE_CHECKING:
    from types import TracebackType

#: Directories that are open at once.
_OPEN = 64

#: What a file is called until it takes the place of another; the rest is random.
_PART = ".#homemgr-part-"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
#: One openat2(2) takes at most PATH_MAX bytes; longer paths go in steps.
_STEP_BYTES = 4000


class _Level:
    """A directory on the way down, and what it is to look like in the end."""

    __slots__ = ("entry", "fd", "identity", "name", "times")

    def __init__(self, fd: Fd, name: bytes, entry: Entry | None) -> None:
        found = os.fstat(fd.fileno())
        self.fd = fd
        self.name = name
        self.entry = entry
        self.times = (found.st_atime_ns, found.st_mtime_ns)
        self.identity = (found.st_dev, found.st_ino)


class TreeWriter:
    """Writes below ``top``, as nobody, in the thread that opened its ``with`` block."""

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
            fd = self._directory(name, is_made=entry is not None)
        self._levels.append(_Level(fd, name, entry))
        if len(self._levels) > _OPEN:
            self._levels[-1 - _OPEN].fd.close()

    def _directory(self, name: bytes, *, is_made: bool) -> Fd:
        parent = self._here
        if is_made:
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                self._make_way(name)
        return _open_directory(parent, name)

    def _make_way(self, name: bytes) -> None:
        """Have a directory ``name`` where something else may be."""
        found = os.stat(name, dir_fd=self._here, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=self._here)
            os.mkdir(name, 0o700, dir_fd=self._here)

    def leave(self) -> None:
        """Go back up; only now the directory gets its own metadata: the work in it changed them."""
        level = self._levels.pop()
        with level.fd:
            if self._levels and not self._levels[-1].fd.is_open:
                self._levels[-1].fd = _open_above(level.fd, self._levels[-1].identity)
            if level.entry is None:
                os.utime(level.fd.fileno(), ns=level.times)
            else:
                apply(level.fd.fileno(), level.entry)

    @property
    def _here(self) -> int:
        return self._levels[-1].fd.fileno()

    # -- what is in them -------------------------------------------------------------------

    def write_small(self, name: bytes, entry: Entry, data: bytes) -> bytes:
        """Make a file of ``data``; gives its proof for the ledger."""
        with self.begin(name, entry) as file:
            file.data(0, data)
            return file.finish()

    def begin(self, name: bytes, entry: Entry, *, copy_of: bytes | None = None) -> FileWriter:
        """Begin a file; with ``copy_of`` its content is at first that of the file at that path."""
        file = FileWriter(self._here, name, entry)
        if copy_of is not None:
            try:
                with self._open_file(copy_of) as source:
                    file.copy(source.fileno())
            except BaseException:
                file.close()
                raise
        return file

    def same(self, name: bytes, entry: Entry) -> bytes:
        """Give the file ``name`` other metadata; gives its proof for the ledger."""
        fd = openat2(self._here, os.fsdecode(name), os.O_RDONLY | GUARDED_FLAGS, RESOLVE_GUARDED)
        with fd:
            return proof(apply(fd.fileno(), entry))

    def node(self, name: bytes, entry: Entry) -> bytes:
        """Make a symbolic link, a fifo or a further name of a file; gives its proof."""
        parent = self._here
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        if entry.kind == Kind.LINK:
            self._link(name, entry.target)
        elif entry.kind == Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
            apply_to_name(parent, name, entry)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
            apply_to_name(parent, name, entry)
        return proof(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def _link(self, name: bytes, target: bytes) -> None:
        directory, first = split(target)
        with self._open_directory(directory) as source:
            os.link(
                first,
                name,
                src_dir_fd=source.fileno(),
                dst_dir_fd=self._here,
                follow_symlinks=False,
            )

    def delete(self, name: bytes) -> None:
        """Take ``name`` away, with all below it."""
        try:
            os.unlink(name, dir_fd=self._here)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            delete_tree(self._levels[-1].fd, os.fsdecode(name))

    # -- by path -----------------------------------------------------------------------------

    def _open_file(self, path: bytes) -> Fd:
        directory, name = split(path)
        with self._open_directory(directory) as parent:
            flags = os.O_RDONLY | GUARDED_FLAGS
            return openat2(parent.fileno(), os.fsdecode(name), flags, RESOLVE_GUARDED)

    def _open_directory(self, path: bytes) -> Fd:
        """A directory below the top by its path, however long that is."""
        return open_directory(self._top, path)


def open_directory(top: Fd, path: bytes) -> Fd:
    """The directory at ``path`` below ``top``, however long the path is; follows no link."""
    fd = Fd.open(".", DIRECTORY_FLAGS, dir_fd=top.fileno())
    while path:
        cut = len(path) if len(path) <= _STEP_BYTES else path.rindex(b"/", 0, _STEP_BYTES)
        step, path = path[:cut], path[cut + 1 :]
        with fd:
            fd = openat2(fd.fileno(), os.fsdecode(step), DIRECTORY_FLAGS, RESOLVE_GUARDED)
    return fd


def _open_directory(parent: int, name: bytes) -> Fd:
    try:
        return openat2(parent, os.fsdecode(name), DIRECTORY_FLAGS, RESOLVE_GUARDED)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StreamError(
            f"There is no directory {name!r} where the sender goes into it."
        ) from error


def _open_above(fd: Fd, expected: tuple[int, int]) -> Fd:
    above = Fd.open("..", DIRECTORY_FLAGS, dir_fd=fd.fileno())
    found = os.fstat(above.fileno())
    if (found.st_dev, found.st_ino) != expected:
        above.close()
        raise StreamError("The tree that arrives was changed by somebody else.")
    return above


class FileWriter:
    """A file on its way; nothing of it stays unless it is finished. A context manager."""

    def __init__(self, parent: int, name: bytes, entry: Entry) -> None:
        """Begin ``name`` in the directory ``parent``, under another name if it is taken."""
        self._parent = parent
        self._name = name
        self._entry = entry
        #: The name it has now; empty once it is to stay.
        self._now = name
        try:
            self._fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        except FileExistsError:
            self._now = os.fsencode(_PART + secrets.token_hex(16))
            self._fd = os.open(self._now, _NEW, 0o600, dir_fd=parent)
        self._is_open = True

    def copy(self, source: int) -> None:
        """Take over the content of ``source`` with its holes; shared where that is possible."""
        try:
            reflink.clone(source, self._fd)
        except OSError:
            size = os.fstat(source).st_size
            for offset, length in data_runs(source, size):
                _copy_range(source, self._fd, offset, length)
        os.ftruncate(self._fd, self._entry.size)

    def data(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``."""
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], offset + written)

    def hole(self, offset: int, length: int) -> None:
        """Store nothing there, and take away what was."""
        reflink.punch_hole(self._fd, offset, length)

    def finish(self) -> bytes:
        """Give the file its metadata and its name; gives its proof for the ledger."""
        if os.fstat(self._fd).st_size != self._entry.size:
            os.ftruncate(self._fd, self._entry.size)
        found = apply(self._fd, self._entry)
        if self._now != self._name:
            os.rename(self._now, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            # The rename changed its ctime.
            found = os.fstat(self._fd)
        self._now = b""
        self.close()
        return proof(found)

    def close(self) -> None:
        """Let go; take away what is not finished."""
        if not self._is_open:
            return
        self._is_open = False
        os.close(self._fd)
        if self._now:
            with suppress(FileNotFoundError):
                os.unlink(self._now, dir_fd=self._parent)

    def __enter__(self) -> FileWriter:
        """Write until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        self.close()


def _copy_range(source: int, target: int, offset: int, length: int) -> None:
    end = offset + length
    while offset < end:
        count = os.copy_file_range(source, target, end - offset, offset, offset)
        if not count:
            return  # the file is shorter than it was
        offset += count
