"""The public files of users on this machine: one directory for each, replaced as a whole.

A picture and the manifest that vouches for it change together: readers see all old files
or all new ones, also after a crash. Place and format as systemd-homed's.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd, write_all
from homemgr.kernel.rename import RENAME_EXCHANGE, renameat2
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

#: Of directories that are not yet, or no longer, those of a user.
_UNFINISHED = ".#homemgr-blobs-"

_CHUNK = 1 << 18


def publish(root: Fd, user: str, blobs: Mapping[str, int]) -> None:
    """Make ``blobs`` (name to open file, checked before) all that ``root`` shows of ``user``."""
    beside = f"{_UNFINISHED}{user}.{secrets.token_hex(4)}"
    os.mkdir(beside, 0o755, dir_fd=root.fileno())
    try:
        with Fd.open(beside, DIRECTORY_FLAGS, dir_fd=root.fileno()) as directory:
            # Whatever the umask made of it.
            os.fchmod(directory.fileno(), 0o755)
            for name, source in blobs.items():
                _write(directory, name, source)
            os.fsync(directory.fileno())
        try:
            # Exchanged, so that at no moment nothing is shown, or only a part.
            renameat2(root.fileno(), beside, root.fileno(), user, RENAME_EXCHANGE)
        except FileNotFoundError:
            os.rename(beside, user, src_dir_fd=root.fileno(), dst_dir_fd=root.fileno())
        os.fsync(root.fileno())
    finally:
        with suppress(FileNotFoundError):
            delete_tree(root, beside)


def _write(directory: Fd, name: str, source: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    with Fd.open(name, flags, 0o600, dir_fd=directory.fileno()) as new:
        position = 0
        while chunk := os.pread(source, _CHUNK, position):
            write_all(new.fileno(), chunk)
            position += len(chunk)
        os.fchmod(new.fileno(), 0o644)
        os.fsync(new.fileno())


def recover(root: Fd) -> None:
    """Delete what ``publish`` left behind where it was killed: either copy is whole elsewhere."""
    for name in os.listdir(root.fileno()):
        if name.startswith(_UNFINISHED):
            log.info("Deleting unfinished public files %s.", name)
            delete_tree(root, name)
