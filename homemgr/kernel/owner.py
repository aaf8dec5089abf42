"""fchownat(2) of the very file that a descriptor is of, links and O_PATH descriptors included."""

from __future__ import annotations

from homemgr.kernel.syscall import AT_EMPTY_PATH, INT, PATH, UINT, libc_call

_fchownat = libc_call("fchownat", INT, PATH, UINT, UINT, INT)


def change_owner(fd: int, uid: int, gid: int) -> None:
    """Give the file ``fd`` to ``uid`` and ``gid``; set-id bits and file capabilities are lost."""
    _fchownat(fd, b"", uid, gid, AT_EMPTY_PATH)
