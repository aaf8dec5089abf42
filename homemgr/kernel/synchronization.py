"""syncfs(2): write out everything of one file system."""

from __future__ import annotations

from homemgr.kernel.syscall import INT, libc_call

_syncfs = libc_call("syncfs", INT)


def syncfs(fd: int) -> None:
    """Return when all of the file system of ``fd`` is on disk; EIO if some of it cannot be."""
    _syncfs(fd)
