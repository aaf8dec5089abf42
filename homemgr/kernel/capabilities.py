"""capset(2): give up capabilities, for a while or for good, see capabilities(7).

Changes the calling thread only. For a while it is the effective set alone: what the thread
may take back stays permitted, so that protects against mistakes and not against an intruder.
"""

from __future__ import annotations

import errno
import itertools
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.kernel.process import (
    CREDENTIALS,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    prctl,
)
from homemgr.kernel.syscall import POINTER, buffer_of, libc_call, packed, zeroed

if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_CHOWN = 1 << 0
CAP_DAC_OVERRIDE = 1 << 1
CAP_FOWNER = 1 << 3
CAP_SYS_ADMIN = 1 << 21

#: struct __user_cap_header_struct: version 3, and the calling thread.
_HEADER = "=Ii"
_VERSION_3 = 0x20080522

#: Two of struct __user_cap_data_struct: effective, permitted, inheritable; low half first.
_DATA = "=6I"
_DATA_SIZE = 24

_capget = libc_call("capget", POINTER, POINTER)
_capset = libc_call("capset", POINTER, POINTER)


@contextmanager
def only_capabilities(kept: int) -> Iterator[None]:
    """Have no capability in effect within the block but those in ``kept`` (and had before)."""
    # Every change clears the dumpable flag of the whole process.
    with CREDENTIALS:
        before = _get()
        low, high = kept & 0xFFFFFFFF, kept >> 32
        _set((before[0] & low, *before[1:3], before[3] & high, *before[4:]))
    try:
        yield
    finally:
        with CREDENTIALS:
            _set(before)


def give_up_all() -> None:
    """Have no capability any more, nor get one by execve(2); raises OSError."""
    with CREDENTIALS:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        # Before the rest: to drop from the bounding set needs CAP_SETPCAP, see prctl(2).
        for number in itertools.count():
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError as error:
                # The first number that the kernel has no capability for.
                if error.errno == errno.EINVAL:
                    break
                raise
        _set((0,) * 6)


def _get() -> tuple[int, ...]:
    data = zeroed(_DATA_SIZE)
    _capget(packed(_HEADER, _VERSION_3, 0), data)
    return struct.unpack(_DATA, data.raw)


def _set(values: tuple[int, ...]) -> None:
    _capset(packed(_HEADER, _VERSION_3, 0), buffer_of(struct.pack(_DATA, *values)))
