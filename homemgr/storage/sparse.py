"""What a file holds and where it holds nothing: SEEK_DATA and SEEK_HOLE of lseek(2).

Everything goes by position, so that descriptors may be shared; nothing waits, and a
file that others shorten meanwhile is read as far as it still goes.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from homemgr.kernel.uncached import pwrite_uncached

if TYPE_CHECKING:
    from collections.abc import Iterator

#: For copying without help of the kernel.
_CHUNK = 1 << 20

#: From how much on at once data are not to stay in memory once they are on disk: less would be
#: as many small requests to the disk.
_PASSING = 64 << 10

#: Where copy_file_range(2) cannot help, plain reading and writing can.
_NO_SHORTCUT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: offset and length of each run, up to ``size``."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            if start >= size:
                return
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            # Only a hole is left; or the file was shortened between the two questions.
            if error.errno == errno.ENXIO:
                return
            raise
        yield start, end - start


def is_dense(fd: int, size: int) -> bool:
    """Whether a file of ``size`` bytes, at least one, has data at each of them."""
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) >= size
    except OSError as error:
        # It was emptied meanwhile.
        if error.errno == errno.ENXIO:
            return False
        raise


def pieces(fd: int, start: int, end: int, length: int) -> Iterator[tuple[int, bytes]]:
    """What a file has from ``start`` to ``end``: offset and at most ``length`` bytes of each."""
    while start < end and (data := os.pread(fd, min(length, end - start), start)):
        yield start, data
        start += len(data)


def data_pieces(fd: int, size: int, length: int) -> Iterator[tuple[int, bytes]]:
    """The data of a file without its holes, up to ``size``, in `pieces`."""
    for start, count in data_runs(fd, size):
        yield from pieces(fd, start, start + count, length)


def data_blocks(fd: int, size: int, block: int) -> Iterator[list[tuple[int, bytes]]]:
    """The data of each block: offset in the block and bytes, holes left out."""
    number = 0
    runs: list[tuple[int, bytes]] = []
    for offset, length in data_runs(fd, size):
        at, end = offset, offset + length
        while at < end:
            while at >= (number + 1) * block:
                yield runs
                number, runs = number + 1, []
            start = number * block
            data = read_at(fd, min(end, start + block) - at, at)
            if not data:
                break
            runs.append((at - start, data))
            at += len(data)
    for _ in range(number, -(-size // block)):
        yield runs
        runs = []


def read_at(fd: int, count: int, offset: int) -> bytes:
    """``count`` bytes, fewer only at the end of the file."""
    data = os.pread(fd, count, offset)
    while 0 < len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def copy_data(old: int, new: int) -> None:
    """Copy the content of ``old`` from its beginning into the empty file ``new``, keeping holes."""
    size = os.fstat(old).st_size
    for start, length in data_runs(old, size):
        _copy_range(old, new, start, start + length)
    os.ftruncate(new, size)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    _write_rest(fd, data, offset, os.pwrite(fd, data, offset))


def write_passing(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Like `write_at`, for data of which nobody is known to read them soon.

    A home is often larger than memory: kept in it, all of it would drive out what is used. And
    to give new pages to each piece takes longer than to use those of the last again.
    """
    written = 0
    if len(data) >= _PASSING:
        try:
            written = pwrite_uncached(fd, data, offset)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
    _write_rest(fd, data, offset, written)


def _write_rest(fd: int, data: bytes | memoryview, offset: int, written: int) -> None:
    while written < len(data):
        # A disk that is nearly full takes a part before it says that it is.
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(old, new, end - start, start, start)
        except OSError as error:
            if error.errno not in _NO_SHORTCUT:
                raise
            _copy_slowly(old, new, start, end)
            return
        if not copied:
            # Shortened meanwhile, or a file system that pretends to be empty.
            _copy_slowly(old, new, start, end)
            return
        start += copied


def _copy_slowly(old: int, new: int, start: int, end: int) -> None:
    for offset, data in pieces(old, start, end, _CHUNK):
        write_at(new, data, offset)
