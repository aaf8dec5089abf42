"""Shares of SMB file servers as mounts that nobody sees. The password goes to the kernel alone."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from homemgr.errors import NotSupported
from homemgr.kernel.mounts import fsconfig_set_flag, fsconfig_set_string, fsopen
from homemgr.volume.file_system import created

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homemgr.files import Fd

#: What the kernel answers to a wrong password, or one that may not be used any more.
_REFUSED: Final = (errno.EACCES, errno.EKEYREJECTED, errno.EKEYEXPIRED, errno.EPERM)


def is_refused(error: OSError) -> bool:
    """Whether the server did not take the password."""
    return error.errno in _REFUSED


def require_kernel() -> None:
    """Raise NotSupported if this kernel knows no such file system."""
    _begun().close()


def mount(
    unc: str, address: str, password: str, values: Mapping[str, str], options: Sequence[str]
) -> Fd:
    """The share ``//host/share`` at ``address`` as a mount that is attached nowhere.

    OSError with what the kernel has to say, NotSupported if it knows none.
    """
    with _begun() as fs:
        for name, value in {"source": unc, "ip": address, **values}.items():
            fsconfig_set_string(fs.fileno(), name, value)
        for option in options:
            name, has_value, value = option.partition("=")
            if has_value:
                fsconfig_set_string(fs.fileno(), name, value)
            else:
                fsconfig_set_flag(fs.fileno(), name)
        fsconfig_set_string(fs.fileno(), "password", password)
        return created(fs)


def address_of(host: str) -> str:
    """The address of a server, which the kernel does not look up itself; OSError if it has none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def _begun() -> Fd:
    try:
        return fsopen("cifs")
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise NotSupported(
            "This kernel cannot mount file servers: it has no file system cifs. Its module is in"
            " the package of the kernel, or one for further modules."
        ) from error
