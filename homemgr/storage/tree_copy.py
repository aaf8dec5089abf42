"""Copy the tree of a home on the same file system, exact, its files sharing blocks with it.

The source may be in use and hostile: it is walked by descriptor, and each file is as of one
moment. The target is out of everybody's reach. Sockets and devices are left out.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from homemgr.files import Fd, write_all
from homemgr.kernel import reflink
from homemgr.kernel.synchronization import syncfs
from homemgr.storage import reader
from homemgr.storage.first_names import FirstNames
from homemgr.storage.writer import TreeWriter
from homemgr.transfer.entry import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.reader import Step

#: Attributes that are copied; labels the machine gives are left to it.
_COPIED: Final = (b"user.", b"system.posix_acl_", b"trusted.", b"homemgr.", b"security.capability")

_PROBED_BYTES: Final = 64 << 10
#: What one file costs at least, where nothing is shared.
_BLOCK: Final = 512


def can_share(directory: Fd) -> bool:
    """Whether files on the file system of ``directory`` can share blocks; found by trying."""
    flags = os.O_TMPFILE | os.O_RDWR
    try:
        with (
            Fd.open(".", flags, 0o600, dir_fd=directory.fileno()) as one,
            Fd.open(".", flags, 0o600, dir_fd=directory.fileno()) as other,
        ):
            write_all(one.fileno(), bytes(_PROBED_BYTES))
            reflink.clone(one.fileno(), other.fileno())
    except OSError:
        return False
    return True


def copy_tree(source: Fd, target: Fd, tell: Callable[[int], None]) -> None:
    """Make the empty directory ``target`` like ``source``, on disk when this returns.

    ``tell`` gets the number of names so far now and then; what it raises ends the copy.
    """
    _Copy(source, target, tell).run()
    syncfs(target.fileno())


def full_size(source: Fd) -> int:
    """The bytes that a copy takes which shares nothing."""
    seen: set[tuple[int, int]] = set()
    size = 0
    for step in reader.walk(source):
        if step.what == reader.LEAVE:
            continue
        identity = (step.stat.st_dev, step.stat.st_ino)
        if step.stat.st_nlink > 1 and step.what == reader.ENTRY:
            if identity in seen:
                continue
            seen.add(identity)
        size += step.stat.st_blocks * _BLOCK
    return size


class _Copy:
    """One copy on its way."""

    def __init__(self, source: Fd, target: Fd, tell: Callable[[int], None]) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._count = 0
        #: Of what was copied.
        self._first = FirstNames()

    def run(self) -> None:
        with TreeWriter(self._target) as writer:
            for step in reader.walk(self._source):
                if step.what == reader.LEAVE:
                    writer.leave()
                    continue
                self._count += 1
                if self._count % 100 == 0:
                    self._tell(self._count)
                try:
                    if step.what == reader.ENTER:
                        writer.enter(step.name, _kept(reader.read_entry(step)))
                    else:
                        self._entry(writer, step)
                except reader.NAMELESS as error:
                    reader.note_path(error, step.path)
                    raise
        self._tell(self._count)

    def _entry(self, writer: TreeWriter, step: Step) -> None:
        try:
            if step.stat.st_nlink > 1:
                first = self._first.get(step.stat)
                if first is not None:
                    writer.node(step.name, Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, first, ()))
                    return
                if self._copied(writer, step):
                    self._first.put(step.stat, step.path)
            else:
                self._copied(writer, step)
        # Deleted or replaced since it was listed: there is nothing of it to be copied.
        except reader.FileVanished:
            return

    @staticmethod
    def _copied(writer: TreeWriter, step: Step) -> bool:
        if stat.S_ISREG(step.stat.st_mode):
            with reader.open_content(step) as file:
                # As it is now, and not when it was listed: it may have grown since.
                fresh = step._replace(stat=os.fstat(file.fileno()))
                entry = _kept(reader.read_entry(fresh, file))
                with writer.begin(step.name, entry) as copy:
                    copy.copy(file.fileno())
                    copy.finish()
            return True
        entry = _kept(reader.read_entry(step))
        if entry.kind not in (Kind.SYMLINK, Kind.FIFO):
            return False
        writer.node(step.name, entry)
        return True


def _kept(entry: Entry) -> Entry:
    if not entry.xattrs:
        return entry
    return entry._replace(xattrs=tuple(x for x in entry.xattrs if x[0].startswith(_COPIED)))
