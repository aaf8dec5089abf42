"""Keys in the kernel, see add_key(2), keyctl(2) and keyrings(7).

A key of type "logon" is never given out again: only the kernel itself uses it, for processes that
have the keyring it is in. A keyring that nobody has any more is gone with the keys in it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from homemgr.kernel.syscall import INT, LONG, PATH, POINTER, SIZE, bare_system_call, failure

#: Numbers of add_key and keyctl, which are older than those that all architectures share.
_NUMBERS: Final = {
    "x86_64": (248, 250),
    "aarch64": (217, 219),
    "riscv64": (217, 219),
    "loongarch64": (217, 219),
    "ppc64le": (269, 271),
    "s390x": (278, 280),
}
_THREAD, _SESSION = -1, -3
_JOIN_SESSION, _CLEAR, _UNLINK, _SEARCH = 1, 7, 9, 10

_add_key = bare_system_call(PATH, PATH, POINTER, SIZE, INT)
_keyctl = bare_system_call(INT, LONG, LONG)
_keyctl_search = bare_system_call(INT, LONG, PATH, PATH, LONG)


def begin() -> None:
    """Have a session keyring of our own, which processes that are forked from now on share."""
    _control(_JOIN_SESSION)


def keep(ring: str, description: str, key: bytearray) -> None:
    """Keep a key of type "logon" in the keyring ``ring`` of this session, alone there."""
    drop(ring)
    number = _add("keyring", ring, bytearray(), _SESSION)
    _add("logon", description, key, number)


def has(ring: str) -> bool:
    """Whether this session has a keyring of that name."""
    return _find(ring) is not None


def drop(ring: str) -> None:
    """Let go of a keyring and of what is in it, if there is one."""
    number = _find(ring)
    if number is not None:
        _control(_CLEAR, number)
        _control(_UNLINK, number, _SESSION)


def clear_own() -> None:
    """Let go of what is in the keyring of this thread, where libraries leave keys."""
    _control(_CLEAR, _THREAD)


def _find(ring: str) -> int | None:
    number = _keyctl_search(_numbers()[1], _SEARCH, _SESSION, b"keyring", ring.encode(), 0)
    if number != -1:
        return number
    if ctypes.get_errno() == errno.ENOKEY:
        return None
    raise failure("keyctl")


def _add(kind: str, description: str, payload: bytearray, ring: int) -> int:
    # The payload where it lies, so that there is no copy that nobody wipes.
    there = (ctypes.c_char * len(payload)).from_buffer(payload) if payload else None
    texts = kind.encode(), description.encode()
    number = _add_key(_numbers()[0], *texts, there, len(payload), ring)
    if number == -1:
        raise failure("add_key")
    return number


def _control(operation: int, first: int = 0, second: int = 0) -> None:
    if _keyctl(_numbers()[1], operation, first, second) == -1:
        raise failure("keyctl")


def _numbers() -> tuple[int, int]:
    found = _NUMBERS.get(os.uname().machine)
    if found is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return found
