"""User namespaces that exist only as a descriptor, to idmap mounts with.

See user_namespaces(7), clone(2). No fork of the interpreter: the child shares our
memory, runs _exit(2) at once, and its remains keep the namespace while it is set up.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.files import Fd, write_all
from homemgr.kernel.process import CLONE_NEWUSER, CREDENTIALS, is_dumpable, set_dumpable
from homemgr.kernel.syscall import INT, POINTER, libc_call, zeroed

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_VM = 0x100
_CLONE_VFORK = 0x4000
#: Wait also for children that send no signal when they end.
_WALL = 0x40000000

_STACK_SIZE = 1 << 16

_clone = libc_call("clone", POINTER, POINTER, INT, POINTER)
# The address of the C function, not of a Python callback: the child must not run Python.
_exit_address = ctypes.cast(ctypes.CDLL(None)["_exit"], POINTER)


def create_userns(uid_map: str, gid_map: str) -> Fd:
    """A new user namespace with these maps (lines of "inside outside count")."""
    with CREDENTIALS, _dumpable():
        pid = _spawn_remains()
        try:
            _write(f"/proc/{pid}/uid_map", uid_map)
            _write(f"/proc/{pid}/gid_map", gid_map)
            return Fd.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        finally:
            os.waitpid(pid, _WALL)


def _spawn_remains() -> int:
    stack = zeroed(_STACK_SIZE)
    # Stacks grow down, and every ABI wants them aligned to 16 bytes.
    top = (ctypes.addressof(stack) + _STACK_SIZE) & ~15
    # VFORK: we sleep until the child is gone, so its stack may be a local of ours.
    # No exit signal: nobody's SIGCHLD handling ever hears of it.
    return _clone(_exit_address, top, _CLONE_VM | _CLONE_VFORK | CLONE_NEWUSER, None)


@contextmanager
def _dumpable() -> Iterator[None]:
    before = is_dumpable()
    set_dumpable(dumpable=True)
    try:
        yield
    finally:
        set_dumpable(dumpable=before)


def _write(path: str, text: str) -> None:
    # The kernel takes a map in one write(2) or not at all.
    with Fd.open(path, os.O_WRONLY) as fd:
        write_all(fd.fileno(), text.encode("ascii"))
