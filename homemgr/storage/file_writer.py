"""Write one file of a tree that arrives: whole under its name, or not there at all.

A new name is written in place, since it was nothing before; what was there already is
replaced in one step at the end, so that a kill leaves the old or the new.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.files import GUARDED_FLAGS, Fd
from homemgr.kernel import reflink
from homemgr.storage.ledger import proof
from homemgr.storage.metadata import apply, set_entry_flags
from homemgr.storage.sparse import copy_data, write_at, write_passing
from homemgr.transfer import flags

if TYPE_CHECKING:
    from types import TracebackType

    from homemgr.transfer.entry import Entry

#: What anything is called until it takes the place of another; the rest is random.
_PART = ".#homemgr-part-"

#: Of a mode: permissions, and with them set-id and sticky.
_ACCESS, _ALL_BITS = 0o777, 0o7777

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS


class FileWriter:
    """A file on its way; nothing of it stays unless it is finished. A context manager."""

    def __init__(self, parent: Fd, name: bytes, entry: Entry) -> None:
        """Begin ``name`` in ``parent``, which is borrowed; under another name if it is taken."""
        self._parent = parent
        self._name = name
        self._entry = entry
        #: The name it has now; empty once it is to stay.
        self._now = name
        directory = parent.fileno()
        # Of tens of thousands each costs what it calls: a number without an owner object.
        try:
            self._fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        except FileExistsError:
            self._now = part_name()
            self._fd = os.open(self._now, _NEW, 0o600, dir_fd=directory)
        self._is_open = True

    def prepare(self) -> None:
        """Have those flags that count for what is written from now on."""
        set_entry_flags(self._fd, self._entry, flags.EARLY_BITS)

    def copy(self, source: int) -> None:
        """Begin with the content of ``source``, holes included; shared where that is possible."""
        try:
            reflink.clone(source, self._fd)
        except OSError:
            copy_data(source, self._fd)
        os.ftruncate(self._fd, self._entry.size)

    def data(self, offset: int, data: bytes | memoryview) -> None:
        """Store ``data`` at ``offset``."""
        write_passing(self._fd, data, offset)

    def hole(self, offset: int, length: int) -> None:
        """Store nothing there, and take away what was."""
        if length:
            reflink.punch_hole(self._fd, offset, length)

    def finish(self) -> bytes:
        """Give the file its metadata and its name; gives its proof for the ledger."""
        if os.fstat(self._fd).st_size != self._entry.size:
            os.ftruncate(self._fd, self._entry.size)
        found = apply(self._fd, self._entry)
        if self._now != self._name:
            put_in_place(self._parent, self._now, self._name)
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
                os.unlink(self._now, dir_fd=self._parent.fileno())

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


def write_new(
    directory: int, name: bytes, entry: Entry, data: bytes | memoryview
) -> os.stat_result:
    """Make a small file, whole or not at all; gives what stat(2) says of it afterwards.

    With as few system calls as can be, for most files of most homes: nothing must be passed on
    to it by the directory, and ``entry`` must have no extended attributes. `FileExistsError`
    if there is something of that name.
    """
    fd = os.open(name, _NEW, entry.mode & _ACCESS, dir_fd=directory)
    try:
        if os.write(fd, data) != len(data):
            # A disk that is nearly full takes a part before it says that it is.
            write_at(fd, data, 0)
        os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
        found = os.fstat(fd)
        if (found.st_mode & _ALL_BITS, found.st_uid, found.st_gid) != entry[1:4]:
            found = apply(fd, entry)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    return found


def part_name() -> bytes:
    """A name for what is to take the place of another; left over, it is nobody's."""
    return os.fsencode(_PART + secrets.token_hex(16))


def put_in_place(parent: Fd, part: bytes, name: bytes) -> None:
    """Give ``part`` the name ``name``, whatever had it; only an empty directory is gone before.

    `StreamError` if that is a directory with something in it: who sends says first that all
    of it goes, so that nothing below it is remembered.
    """
    directory = parent.fileno()
    try:
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise StreamError(
                f"{name!r} is to replace a directory that was not deleted before."
            ) from error
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
