"""openat2(2): open a path under rules that the kernel enforces at every component."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.kernel.syscall import INT, PATH, POINTER, SIZE, bare_system_call, failure, packed

if TYPE_CHECKING:
    import ctypes

    Way = ctypes.Array[ctypes.c_char]

#: What the resolution of the whole path must not do.
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
#: Links and ``..`` that would lead out of it end at the directory, as after chroot(2).
RESOLVE_IN_ROOT = 0x10

#: struct open_how: flags, mode, resolve.
_OPEN_HOW = "=QQQ"
_OPEN_HOW_SIZE = 24

_NUMBER = 437
_system_call = bare_system_call(INT, PATH, POINTER, SIZE)


def openat2(dirfd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> Fd:
    """Open ``path`` below ``dirfd``; EAGAIN if a rename made RESOLVE_BENEATH undecidable."""
    return Fd.opened(open_number(dirfd, os.fsencode(path), way_to_open(flags, resolve, mode)))


@functools.cache
def way_to_open(flags: int, resolve: int, mode: int = 0) -> Way:
    """The structure for one way to open, of which a program has few; the kernel only reads it."""
    return packed(_OPEN_HOW, flags | os.O_CLOEXEC, mode, resolve)


def open_number(dirfd: int, path: bytes, how: Way) -> int:
    """Like `openat2`, ``how`` being a `way_to_open`; the caller closes the number."""
    number = _system_call(_NUMBER, dirfd, path, how, _OPEN_HOW_SIZE)
    if number == -1:
        raise failure("openat2", dirfd, path)
    return number
