"""Blob files a client hands over with a record: checked, and named in the record's manifest.

Reads descriptors, so everything here blocks and belongs into threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon.store import MAX_BLOB_BYTES
from homemgr.record import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.files import Fd
    from homemgr.record.model import UserRecord


def with_manifest(record: UserRecord, blobs: Mapping[str, Fd]) -> UserRecord:
    """The record with a manifest of exactly these blobs; one it brings along must name them.

    Raises InvalidArgs for a name or descriptor that is not allowed.
    """
    digests = {name: _digest(name, blob.fileno()) for name, blob in blobs.items()}
    given = record.data.get("blobManifest")
    if given is None:
        return record.replaced(blobManifest=dict(digests)) if digests else record
    if not isinstance(given, dict) or given != digests:
        raise errors.InvalidRecord(
            f".blobManifest: expected the digests of the given blobs, {sorted(blobs)}."
        )
    return record


def _digest(name: str, fd: int) -> str:
    if not names.is_blob_name(name):
        raise errors.InvalidArgs(
            f"blobs: {name!r} is no blob name: expected letters, digits, -._~."
        )
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise errors.InvalidArgs(f"blobs: {name} is no regular file.")
    if status.st_size > MAX_BLOB_BYTES:
        raise errors.InvalidArgs(f"blobs: {name} has more than {MAX_BLOB_BYTES} bytes.")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise errors.InvalidArgs(f"blobs: {name} is not open for reading.")
    os.lseek(fd, 0, os.SEEK_SET)
    return hashlib.sha256(files.read_limited(fd, MAX_BLOB_BYTES, name)).hexdigest()
