"""The C library's name service, see nsswitch.conf(5) and the GNU C library's manual."""

from __future__ import annotations

from homemgr.kernel.syscall import PATH, libc_call

_configure = libc_call("__nss_configure_lookup", PATH, PATH)


def files_only() -> None:
    """Look users and groups up in /etc/passwd and /etc/group alone, in this process for good."""
    for database in (b"passwd", b"group", b"shadow", b"initgroups"):
        _configure(database, b"files")
