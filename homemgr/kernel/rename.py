"""renameat2(2): rename that refuses to replace, or swaps two names."""

from __future__ import annotations

import os

from homemgr.kernel.syscall import INT, PATH, UINT, libc_call

#: EEXIST instead of replacing; not every file system can (EINVAL).
RENAME_NOREPLACE = 1
#: Both names exist before and after.
RENAME_EXCHANGE = 2

_renameat2 = libc_call("renameat2", INT, PATH, INT, PATH, UINT)


def renameat2(olddirfd: int, oldpath: str, newdirfd: int, newpath: str, flags: int) -> None:
    """Rename; EEXIST with RENAME_NOREPLACE if the new name is taken."""
    _renameat2(olddirfd, os.fsencode(oldpath), newdirfd, os.fsencode(newpath), flags)
