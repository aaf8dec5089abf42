"""Create files as somebody else from the first byte: setfsuid(2), setfsgid(2).

Changes the calling thread only, and keeps its capabilities. The thread must be one
that runs nothing else meanwhile: never an event loop's, never one of a shared pool
that is left before the block ends.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.kernel.process import CREDENTIALS, PR_GET_SECUREBITS, PR_SET_SECUREBITS, prctl
from homemgr.kernel.syscall import UINT, libc_call

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Without it the kernel takes the file capabilities away when the fsuid leaves 0.
_SECBIT_NO_SETUID_FIXUP = 1 << 2

#: An id that cannot be set.
_NO_CHANGE = 0xFFFFFFFF

_setfsuid = libc_call("setfsuid", UINT)
_setfsgid = libc_call("setfsgid", UINT)


@contextmanager
def filesystem_identity(uid: int, gid: int) -> Iterator[None]:
    """Access files as ``uid``:``gid`` within the block, with the capabilities of before."""
    with CREDENTIALS:
        securebits = prctl(PR_GET_SECUREBITS)
        before = current_identity()
        prctl(PR_SET_SECUREBITS, securebits | _SECBIT_NO_SETUID_FIXUP)
        _become(uid, gid)
    try:
        # Within the try: what was half done is taken back as well.
        if current_identity() != (uid, gid):
            raise OSError(errno.EPERM, f"setfsuid: cannot access files as {uid}:{gid}")
        yield
    finally:
        # In reverse: the bit still protects the capabilities on the way back.
        with CREDENTIALS:
            _become(*before)
            prctl(PR_SET_SECUREBITS, securebits)


def current_identity() -> tuple[int, int]:
    """The fsuid and fsgid of the calling thread."""
    # The calls cannot fail visibly; asked for an impossible id they tell the present one.
    return _setfsuid(_NO_CHANGE) & _NO_CHANGE, _setfsgid(_NO_CHANGE) & _NO_CHANGE


def _become(uid: int, gid: int) -> None:
    # Neither call reports failure; whoever calls compares afterwards.
    _setfsgid(gid)
    _setfsuid(uid)
