"""The user record inside a home: `.identity`; the blobs beside it are in `blobs`.

The directory belongs to a user who may be hostile: reading judges what it finds, and
writing is done as the owner. Knows no JSON; see homed's storage format.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import HostileHome
from homemgr.files import GUARDED_FLAGS, Fd, read_limited, write_all
from homemgr.kernel.identity import filesystem_identity
from homemgr.storage import subvolume
from homemgr.storage.blobs import read_blobs as read_blobs
from homemgr.storage.blobs import write_blobs as write_blobs
from homemgr.storage.guarded import open_guarded
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from homemgr.storage.top import Top

IDENTITY = ".identity"

#: Records are a few KiB; this only keeps a hostile one from filling our memory.
IDENTITY_LIMIT = 1 << 20

#: Fixed, so that at most one leftover of a killed run exists.
IDENTITY_NEW = ".identity.homemgr-new"


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
    # Its owner may keep himself from writing there, but not us.
    with subvolume.written(top.fd), filesystem_identity(top.disk_uid, top.disk_gid):
        _replace_identity(top.fd, data)


def forget_unfinished(directory: Fd) -> None:
    """Delete what `write_identity` left in the top directory of a home when it was killed."""
    _forget(directory.fileno(), IDENTITY_NEW)


def _replace_identity(directory: Fd, data: bytes) -> None:
    temporary, new = _create_temporary(directory.fileno())
    with new, ExitStack() as undo:
        undo.callback(_forget, directory.fileno(), temporary)
        write_all(new.fileno(), data)
        os.fchmod(new.fileno(), 0o600)
        os.fsync(new.fileno())
        _replace_file(directory.fileno(), temporary, IDENTITY)
        undo.pop_all()
    # Durable before anybody is told that the record was written.
    os.fsync(directory.fileno())


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
            os.unlink(IDENTITY_NEW, dir_fd=directory)
        return IDENTITY_NEW, Fd.open(IDENTITY_NEW, flags, 0o600, dir_fd=directory)
    except (IsADirectoryError, PermissionError, FileExistsError):
        # Its owner put a directory there to stop us, or recreates it in a race.
        name = f"{IDENTITY_NEW}.{secrets.token_hex(8)}"
        return name, Fd.open(name, flags, 0o600, dir_fd=directory)


def _forget(directory: int, temporary: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)


def _replace_file(directory: int, temporary: str, name: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError as error:
        where = os.path.join(location(directory), name)
        raise HostileHome(f"{where} is a directory; expected a regular file.") from error
