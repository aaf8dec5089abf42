"""openat2(2): open a path under rules that the kernel enforces at every component."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.kernel.syscall import INT, PATH, POINTER, SIZE, packed, system_call

if TYPE_CHECKING:
    import ctypes

#: What the resolution of the whole path must not do.
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

#: struct open_how: flags, mode, resolve.
_OPEN_HOW = "=QQQ"
_OPEN_HOW_SIZE = 24

_openat2 = system_call("openat2", 437, INT, PATH, POINTER, SIZE)


def openat2(dirfd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> Fd:
    """Open ``path`` below ``dirfd``; EAGAIN if a rename made RESOLVE_BENEATH undecidable."""
    how = _how(flags | os.O_CLOEXEC, mode, resolve)
    return Fd.opened(_openat2(dirfd, os.fsencode(path), how, _OPEN_HOW_SIZE))


@functools.cache
def _how(flags: int, mode: int, resolve: int) -> ctypes.Array[ctypes.c_char]:
    """The structure for one way to open, of which a program has few; the kernel only reads it."""
    return packed(_OPEN_HOW, flags, mode, resolve)
