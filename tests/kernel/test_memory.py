"""Memory is there at once, and only as long as asked for."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path

import pytest

from homemgr.kernel import memory

pytestmark = pytest.mark.root

SIZE_BYTES = 16 << 20
PAGES = SIZE_BYTES // mmap.PAGESIZE


def locked_kib() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmLck:")))


def faults_of_a_new_mapping() -> int:
    """How many page faults it takes to write to each of its pages."""
    with mmap.mmap(-1, SIZE_BYTES) as area:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for page in range(PAGES):
            area[page * mmap.PAGESIZE] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_new_memory_is_there_without_faults_until_the_end_of_the_block() -> None:
    assert memory.may_lock_all()
    with memory.locked_when_new():
        assert faults_of_a_new_mapping() < PAGES // 10
        with mmap.mmap(-1, SIZE_BYTES):
            assert locked_kib() >= SIZE_BYTES >> 10
    assert locked_kib() == 0
    with mmap.mmap(-1, SIZE_BYTES):
        assert locked_kib() == 0
