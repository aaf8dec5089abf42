"""How a system call becomes a Python function: prototype fixed once, failure is OSError.

Knows ctypes and nothing of what the calls do. Every other module here binds its
calls with `libc_call` (where the C library has a wrapper) or `system_call`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Flags and marks that many calls share, see openat(2) and statx(2).
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

#: Argument types under the names of the man pages.
INT = ctypes.c_int
UINT = ctypes.c_uint
SIZE = ctypes.c_size_t
LONG = ctypes.c_long
ULONG = ctypes.c_ulong
PATH = ctypes.c_char_p
POINTER = ctypes.c_void_p

_LIBC = ctypes.CDLL(None, use_errno=True)


def libc_call(name: str, *argtypes: type) -> Callable[..., int]:
    """The C library's wrapper ``name``, returning int and setting errno at -1."""
    # Look-up by item gives a new object: its prototype is ours alone.
    call = _LIBC[name]
    call.argtypes, call.restype = argtypes, INT
    return _checked(name, call)


def system_call(name: str, number: int, *argtypes: type) -> Callable[..., int]:
    """System call ``number``; only those from 424 on have one number on every architecture."""
    return _checked(name, partial(bare_system_call(*argtypes), number))


def bare_system_call(*argtypes: type) -> Callable[..., int]:
    """Any system call with these arguments, given its number first; -1 says to ask `failure`.

    For what is called for every file of a home: each function around it takes its time.
    """
    call: Callable[..., int] = _LIBC["syscall"]
    call.argtypes, call.restype = (LONG, *argtypes), LONG  # type: ignore[attr-defined]
    return call


def _checked(name: str, call: Callable[..., int]) -> Callable[..., int]:
    def invoke(*arguments: object) -> int:
        result = call(*arguments)
        if result == -1:
            raise failure(name, *arguments)
        return result

    return invoke


def failure(name: str, *arguments: object) -> OSError:
    """What errno says after a call of ``name`` that failed; with the path it was given, if any."""
    number = ctypes.get_errno()
    # Paths are the only bytes we pass; structures go in as ctypes arrays.
    paths = [a.decode("utf-8", "surrogateescape") for a in arguments if isinstance(a, bytes) and a]
    return OSError(number, f"{name}: {os.strerror(number)}", *paths[:1])


def packed(layout: str, *values: int) -> ctypes.Array[ctypes.c_char]:
    """A C structure in ``struct`` notation, to be passed as `POINTER`."""
    return buffer_of(struct.pack(layout, *values))


def buffer_of(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """A writable copy of ``content`` of exactly that size."""
    return ctypes.create_string_buffer(content, len(content))


def zeroed(size: int) -> ctypes.Array[ctypes.c_char]:
    """An empty structure of ``size`` bytes for the kernel to fill."""
    return ctypes.create_string_buffer(size)
