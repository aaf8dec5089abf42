"""An image gets another size, and its partition table with it: all of that or nothing.

What is being done is noted in the image itself, in the gap between table and first partition,
before anything is written. Who is killed, or loses power, between any two steps leaves a note
that `settle` reads before the image is used next: what was not finished is, or is taken back. The
file system inside is smaller than both sizes all the time, so that nothing of it is in the way.
A disk keeps its size: there only the partition gets another one.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import HostileHome, NotSupported, from_os_error
from homemgr.storage import image_parts
from homemgr.storage.paths import location
from homemgr.volume import gpt
from homemgr.volume.luks_header import MAGIC
from homemgr.volume.reading import reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.files import Fd
    from homemgr.storage.image_parts import Part

#: Where in an image the note is; tables end before it, and partitions begin after it.
_NOTE_AT: Final = 512 << 10
_NOTE_BYTES: Final = 4096
#: Bytes of a sector of an image or disk with a table.
_SECTORS: Final = (512, 4096)
#: What it begins with, the length of the text after it, and the sum of that.
_NOTE: Final = struct.Struct("<16sII")
_MAGIC: Final = b"homemgr-resize-1"


class Layout(NamedTuple):
    """How an image is divided; sizes in bytes. Without ``disk`` it has no table."""

    size: int
    sector: int
    disk: str | None
    parts: tuple[gpt.Partition, ...]

    def home_size(self, part: Part) -> int:
        """Bytes of the part in which the home lies."""
        found = [p.size for p in self.parts if p.guid == part.guid]
        return found[0] if found else self.size - part.offset

    @property
    def home_bytes(self) -> int:
        """Bytes of all its partitions, of which only the home's gets another size."""
        return sum(p.size for p in self.parts)

    def table(self) -> dict[int, bytes]:
        """What is to be written where; ValueError for what can be no table."""
        if self.disk is None:
            return {}
        try:
            return gpt.table(self.size, self.disk, self.parts, self.sector)
        except (struct.error, OverflowError, ZeroDivisionError) as error:
            raise ValueError(str(error)) from error


def layout_of(image: Fd, path: str, part: Part) -> Layout:
    """How the image is divided now."""
    size = os.lseek(image.fileno(), 0, os.SEEK_END)
    if part.guid is None:
        return Layout(size, 0, None, ())
    every = image_parts.partitions(image, path)
    disk, sector = gpt.disk_of(reader(image.fileno(), 0, size))
    return Layout(size, sector, disk, tuple(every))


def is_disk(image: Fd) -> bool:
    """Whether it is a device, and no file."""
    return stat.S_ISBLK(os.fstat(image.fileno()).st_mode)


def require_reproducible(disk: Fd, path: str) -> None:
    """Raise NotSupported for a disk that loses more by another table than is meant to."""
    size = os.lseek(disk.fileno(), 0, os.SEEK_END)
    if not gpt.is_reproducible(reader(disk.fileno(), 0, size), size):
        raise NotSupported(
            f"The table of {path} says what would be lost if it was written anew: expected"
            " partitions without attributes, numbered from 1 without gaps in the order of their"
            " places (see --part-attrs and --reorder in sfdisk(8))."
        )


def resized(layout: Layout, part: Part, size: int, *, keeps_size: bool = False) -> Layout:
    """The same for an image of ``size`` bytes; one that ``keeps_size`` has a partition of those.

    Raises NotSupported if the home is not at its end.
    """
    if part.guid is None:
        return layout._replace(size=size)
    *others, home = sorted(layout.parts, key=lambda p: p.start)
    if home.guid != part.guid or min(p.start for p in layout.parts) < _NOTE_AT + _NOTE_BYTES:
        raise NotSupported(
            "The image is divided in an unusual way: expected the home in its last partition, and"
            " none before the first MiB."
        )
    if keeps_size:
        return layout._replace(parts=(*others, home._replace(size=size)))
    start, length = gpt.last_partition(size, home.start, layout.sector)
    return layout._replace(size=size, parts=(*others, home._replace(start=start, size=length)))


def most_on_disk(layout: Layout, part: Part) -> int:
    """Bytes that the part can have on a disk that keeps its size."""
    return gpt.last_partition(layout.size, part.offset, layout.sector)[1]


def grow(image: Fd, old: Layout, new: Layout, *, is_sparse: bool) -> None:
    """Have more room, all of it at once unless it ``is_sparse``, and the table say so.

    Raises NoDiskSpace, the image being as it was.
    """
    # First, and on disk: whoever is killed after it leaves what `settle` finishes or takes back.
    _note(image, old, new)
    try:
        if new.size > old.size:
            _extend(image, old.size, new.size, is_sparse=is_sparse)
        _write_table(image, new)
    except OSError as error:
        settle(image)
        raise from_os_error(error, f"Growing {location(image.fileno())}") from error
    _forget(image, new)


def shrink(image: Fd, old: Layout, new: Layout, let_go: Callable[[], None]) -> None:
    """Have less room. ``let_go`` has who uses the part know that its end goes now."""
    _note(image, old, new)
    # From the inside out: nothing says any more that the end is used when it goes.
    _write_table(image, new)
    let_go()
    if new.size < old.size:
        os.ftruncate(image.fileno(), new.size)
        os.fsync(image.fileno())
    _forget(image, new)


def settle(image: Fd) -> None:
    """Finish, or take back, what somebody who was killed had begun with the image.

    Nobody has judged yet what is in it: a note may come from anybody, or be left of what was here
    once. One of another table is none; HostileHome for one that nobody of us wrote.
    """
    size = os.lseek(image.fileno(), 0, os.SEEK_END)
    try:
        found = _noted(image)
        goal = None if found is None else _goal(image, size, *found)
        if goal is None:
            return
        _require_possible(goal, size)
        table = goal.table()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HostileHome(
            f"{location(image.fileno())} has a note of a resize that says nothing (at byte"
            f" {_NOTE_AT})."
        ) from error
    _write(image, table)
    # Who uses it while it shrinks was told before its end goes, or is not there any more.
    if size > goal.size and not is_disk(image):
        os.ftruncate(image.fileno(), goal.size)
        os.fsync(image.fileno())
    _forget(image, goal)


def _noted(image: Fd) -> tuple[Layout, Layout] | None:
    """Layouts before and after; ValueError and such for a note that says nothing."""
    raw = os.pread(image.fileno(), _NOTE_BYTES, _NOTE_AT)
    # A volume without a table has its own header there.
    if len(raw) < _NOTE_BYTES or os.pread(image.fileno(), len(MAGIC), 0) == MAGIC:
        return None
    magic, length, crc = _NOTE.unpack_from(raw)
    text = raw[_NOTE.size : _NOTE.size + length]
    if magic != _MAGIC or zlib.crc32(text) != crc:
        # There is none, or it was not written to its end: then nothing was begun.
        return None
    try:
        old, new = json.loads(text)
    # A note may come from anybody: one that is made to be too much for us is none.
    except (RecursionError, MemoryError):
        return None
    return _layout(old), _layout(new)


def _require_possible(goal: Layout, size: int) -> None:
    """Raise ValueError for what no resize of an image that has ``size`` bytes comes to."""
    ends = [(p.start, p.start + p.size) for p in goal.parts]
    if (
        goal.size > size
        or goal.sector not in _SECTORS
        or not ends
        or any(
            start < _NOTE_AT + _NOTE_BYTES or not start < end <= goal.size for start, end in ends
        )
    ):
        raise ValueError("impossible places")


def _goal(image: Fd, size: int, old: Layout, new: Layout) -> Layout | None:
    """What an image of ``size`` bytes is to be; None if the note is not about its present table.

    Others, as systemd-homed, may have given it another size since, and know nothing of our note.
    """
    try:
        if (new.disk, new.sector) != gpt.disk_of(reader(image.fileno(), 0, size)):
            return None
    except ValueError:
        return None
    now = _parts_now(image, size)
    if now not in (None, frozenset(old.parts), frozenset(new.parts)):
        return None
    if now == frozenset(old.parts) and new.home_bytes < old.home_bytes:
        # Nothing was written: it keeps what somebody may have filled again by now.
        return old
    # To grow is finished only if there is all the room; what is there is given back else.
    return new if size >= new.size else old


def _parts_now(image: Fd, size: int) -> frozenset[gpt.Partition] | None:
    """What its table says; None if that was not written to its end."""
    try:
        return frozenset(gpt.partitions(reader(image.fileno(), 0, size), size))
    except ValueError:
        return None


def _extend(image: Fd, old: int, new: int, *, is_sparse: bool) -> None:
    if not is_sparse:
        try:
            # Killed in the middle the file ends where there is room so far, short of the goal.
            os.posix_fallocate(image.fileno(), old, new - old)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
    os.ftruncate(image.fileno(), new)
    os.fsync(image.fileno())


def _note(image: Fd, old: Layout, new: Layout) -> None:
    if old.disk is None:
        # Without a table there is only the end of the file, which is moved in one step.
        return
    text = json.dumps([old, new], separators=(",", ":")).encode()
    raw = _NOTE.pack(_MAGIC, len(text), zlib.crc32(text)) + text
    if len(raw) > _NOTE_BYTES:
        raise NotSupported(f"{location(image.fileno())} has too many partitions to be resized.")
    os.pwrite(image.fileno(), raw.ljust(_NOTE_BYTES, b"\0"), _NOTE_AT)
    os.fsync(image.fileno())


def _forget(image: Fd, layout: Layout) -> None:
    if layout.disk is not None:
        os.pwrite(image.fileno(), bytes(_NOTE_BYTES), _NOTE_AT)
        os.fsync(image.fileno())


def _layout(told: object) -> Layout:
    if not isinstance(told, list):
        raise TypeError(told)
    size, sector, disk, parts = told
    return Layout(int(size), int(sector), str(disk), tuple(gpt.Partition(*one) for one in parts))


def _write_table(image: Fd, layout: Layout) -> None:
    _write(image, layout.table())


def _write(image: Fd, table: dict[int, bytes]) -> None:
    """Write both copies, the one at the end first, so that one of them is whole at any time.

    What is as it should be already is left alone, but is on disk before anything else is done: who
    wrote it may have been killed before he saw to that.
    """
    for offset in sorted(table, reverse=True):
        wanted = table[offset]
        now = os.pread(image.fileno(), len(wanted), offset)
        if offset == 0:
            # On a disk it says the size, which is the same.
            wanted = now if is_disk(image) else gpt.boot_record(now, wanted)
        if wanted != now:
            os.pwrite(image.fileno(), wanted, offset)
        os.fsync(image.fileno())
