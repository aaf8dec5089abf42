"""What a process can say about itself: prctl(2) and unshare(2).

Also the lock between what clears the dumpable flag and what needs it: every change of
credentials clears it for the whole process, and without it /proc/PID of a child that
shares our memory is closed to us unless we hold CAP_SYS_PTRACE.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import suppress

from homemgr.kernel.syscall import INT, ULONG, libc_call

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

#: Options of prctl(2).
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38

#: Held while the dumpable flag is needed, and while credentials change.
CREDENTIALS = threading.Lock()

_prctl = libc_call("prctl", INT, ULONG, ULONG, ULONG, ULONG)
_unshare = libc_call("unshare", INT)


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument; the kernel wants the unused ones to be zero."""
    return _prctl(option, argument, 0, 0, 0)


def set_name(name: str) -> None:
    """Be called ``name`` in lists of processes; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def end_with_parent(parent: int) -> None:
    """Be killed when the thread that forked us ends, or now if process ``parent`` has ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Asked after the call: of a parent that has ended before it no signal comes any more.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def set_dumpable(*, dumpable: bool) -> None:
    """Allow or forbid core dumps of, and ptrace on, this process."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def is_dumpable() -> bool:
    """Whether the process may be dumped by its own user."""
    # 2 means "for root only", which is no help to /proc access checks.
    return prctl(PR_GET_DUMPABLE) == 1


def unshare(flags: int) -> None:
    """Leave namespaces shared so far; per thread, os.unshare exists from Python 3.12 on only."""
    _unshare(flags)


def kill(pid: int, uid: int) -> None:
    """End a process at once, if it is one of ``uid`` and still there."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            # By descriptor: a new process with the same number is not hit by mistake.
            if os.stat(f"/proc/{pid}").st_uid == uid:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except FileNotFoundError:
            return
        finally:
            os.close(fd)
