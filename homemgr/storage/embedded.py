"""The user record inside a home: `.identity`, in a directory its owner controls.

Everything there is looked at before it is opened and judged by its descriptor, and
what we write is written as the owner. Knows no JSON; see homed's storage format.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import HostileHome
from homemgr.files import GUARDED_FLAGS, Fd, read_limited, write_all
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from homemgr.storage.top import Top

IDENTITY = ".identity"

IDENTITY_LIMIT = 1 << 20

_IDENTITY_NEW = ".identity.homemgr-new"

#: How a path inside a home is resolved: no link, no mount, not out of it.
RESOLVE_GUARDED = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def read_identity(top: Top) -> bytes | None:
    """The embedded user record as it lies there; None if the home has none."""
    try:
        fd = open_guarded(top.fd, IDENTITY, top.disk_uid)
    except FileNotFoundError:
        return None
    with fd:
        return _read(fd)


def write_identity(top: Top, data: bytes) -> None:
    """Put ``data`` in the place of `.identity`, whole or not at all, owned by the home's owner."""
    with filesystem_identity(top.disk_uid, top.disk_gid):
        place_identity(top.fd, data)


def place_identity(directory: Fd, data: bytes) -> None:
    """`write_identity` for a caller that already has the identity of the home's owner."""
    temporary, new = _create_temporary(directory.fileno())
    with new:
        try:
            write_all(new.fileno(), data)
            os.fchmod(new.fileno(), 0o600)
            os.fsync(new.fileno())
            _replace_file(directory.fileno(), temporary, IDENTITY)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory.fileno())
            raise
    os.fsync(directory.fileno())


def open_guarded(directory: Fd, name: str, owner: int) -> Fd:
    """Open the regular file ``name`` for reading after everything about it was found in order.

    First without opening in earnest: opening a device may already do something.
    """
    try:
        seen = openat2(directory.fileno(), name, os.O_PATH | os.O_NOFOLLOW, RESOLVE_GUARDED)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise hostile(directory, name, "a file of this home", error) from error
    with seen:
        found = os.fstat(seen.fileno())
        where = os.path.join(location(directory.fileno()), name)
        if not stat.S_ISREG(found.st_mode):
            raise HostileHome(f"{where} must be a regular file.")
        if found.st_nlink != 1:
            raise HostileHome(f"{where} has {found.st_nlink} links; expected exactly one.")
        if found.st_uid != owner:
            raise HostileHome(f"{where} belongs to uid {found.st_uid}; expected {owner}.")
        # The very inode that was judged, whatever has the name by now.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return Fd(os.open(f"/proc/self/fd/{seen.fileno()}", flags))


def hostile(directory: Fd, name: str, expected: str, error: OSError) -> HostileHome:
    """What to answer if opening ``name`` in a home failed in a way only its owner can cause."""
    where = os.path.join(location(directory.fileno()), name)
    text = os.strerror(error.errno) if error.errno else str(error)
    return HostileHome(f"{where} must be {expected}: {text}.")


def _read(fd: Fd) -> bytes:
    try:
        return read_limited(fd.fileno(), IDENTITY_LIMIT, IDENTITY)
    except OSError as error:
        if error.errno == errno.EFBIG:
            where = location(fd.fileno())
            raise HostileHome(f"{where} is larger than {IDENTITY_LIMIT} bytes.") from error
        raise


def _create_temporary(directory: int) -> tuple[str, Fd]:
    """A new file to be renamed, under our fixed name or, if that cannot be cleared, another."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    try:
        with suppress(FileNotFoundError):
            os.unlink(_IDENTITY_NEW, dir_fd=directory)
        return _IDENTITY_NEW, Fd(os.open(_IDENTITY_NEW, flags, 0o600, dir_fd=directory))
    except (IsADirectoryError, PermissionError, FileExistsError):
        name = f"{_IDENTITY_NEW}.{secrets.token_hex(8)}"
        return name, Fd(os.open(name, flags, 0o600, dir_fd=directory))


def _replace_file(directory: int, temporary: str, name: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError as error:
        where = os.path.join(location(directory), name)
        raise HostileHome(f"{where} is a directory; expected a regular file.") from error
