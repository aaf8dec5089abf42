"""What arrives is written past the page cache where the file system can, and whole everywhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from homemgr.kernel.synchronization import syncfs
from homemgr.kernel.uncached import pwrite_uncached
from homemgr.storage import sparse
from tests.kernel.travels import file_entry, make_top, opened, writing
from tests.world.box import wait_for

PIECE = 256 << 10
SMALL = 4096
CONTENT = bytes(range(256)) * (PIECE >> 8)


def is_in_memory(fd: int, offset: int) -> bool:
    """Whether a read there would not wait for the disk: RWF_NOWAIT of preadv2(2)."""
    try:
        return os.preadv(fd, [bytearray(SMALL)], offset, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def test_large_data_do_not_stay_in_memory_and_small_ones_do(volume: Path) -> None:
    top = make_top(volume / "passing")
    with writing(top) as writer:
        with writer.begin(b"large", file_entry(4 * PIECE)) as file:
            for number in range(4):
                file.data(number * PIECE, CONTENT)
            file.finish()
        with writer.begin(b"small", file_entry(SMALL)) as file:
            file.data(0, CONTENT[:SMALL])
            file.finish()
    with opened(top) as fd:
        syncfs(fd.fileno())
    large = os.open(top / "large", os.O_RDONLY)
    small = os.open(top / "small", os.O_RDONLY)
    try:
        if can(top):
            wait_for(lambda: not any(is_in_memory(large, n * PIECE) for n in range(4)), "it left")
        else:
            assert is_in_memory(large, 0)
        assert is_in_memory(small, 0)
    finally:
        os.close(large)
        os.close(small)
    assert (top / "large").read_bytes() == CONTENT * 4


def can(top: Path) -> bool:
    """Whether this kernel and file system can do it at all."""
    fd = os.open(top / "tried", os.O_WRONLY | os.O_CREAT)
    try:
        return pwrite_uncached(fd, CONTENT, 0) > 0
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    finally:
        os.close(fd)


def test_where_it_cannot_be_it_is_written_as_ever(tmp_path: Path) -> None:
    # A file in memory has nowhere else to be.
    fd = os.memfd_create("nowhere else")
    try:
        with pytest.raises(OSError, match="Operation not supported"):
            pwrite_uncached(fd, CONTENT, 0)
        sparse.write_passing(fd, CONTENT, SMALL)
        assert os.pread(fd, SMALL + PIECE + 1, 0) == bytes(SMALL) + CONTENT
    finally:
        os.close(fd)
