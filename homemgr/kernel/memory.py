"""Memory that is there at once and stays: mlockall(2), munlockall(2), mallopt(3)."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.kernel.syscall import INT, libc_call

if TYPE_CHECKING:
    from collections.abc import Iterator

MCL_FUTURE = 2
CAP_IPC_LOCK = 14

_mlockall = libc_call("mlockall", INT)
_munlockall = libc_call("munlockall")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_mallopt = libc_call("mallopt", INT, INT)


def mlockall(flags: int) -> None:
    """Populate and lock mappings of this process, those to come with MCL_FUTURE."""
    _mlockall(flags)


def munlockall() -> None:
    """Undo `mlockall`."""
    _munlockall()


@functools.cache
def may_lock_all() -> bool:
    """Whether we hold CAP_IPC_LOCK; without it, mapping fails beyond RLIMIT_MEMLOCK."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_IPC_LOCK & 1)


@contextmanager
def locked_when_new() -> Iterator[None]:
    """Populate and lock what is mapped inside the block, until its end."""
    mlockall(MCL_FUTURE)
    try:
        yield
    finally:
        munlockall()


def keep_freed(limit: int) -> None:
    """Keep up to ``limit`` bytes that were freed, and pieces as large, for the next use.

    Else malloc(3) gives large pieces back at once, and the kernel clears the same pages
    again and again for a program that goes through many of them.
    """
    _mallopt(_M_MMAP_THRESHOLD, limit)
    _mallopt(_M_TRIM_THRESHOLD, limit)
