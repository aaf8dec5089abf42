"""Copy the files a new home begins with, by descriptor and as whoever calls.

Regular files, directories and symbolic links with mode, time, user attributes and
holes; everything else is left out and named in the result. Ownership is the
caller's business: files belong to its file system identity from the first byte.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from homemgr.errors import InvalidArgs
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.storage.sparse import copy_data

if TYPE_CHECKING:
    from collections.abc import Collection

#: A skeleton deeper than this is a mistake, and descriptors are held on the way down.
_DEPTH_LIMIT = 100


def copy_skeleton(path: str, target: Fd, leave_out: Collection[str]) -> list[str]:
    """Copy what is in directory ``path`` into ``target``, except top names in ``leave_out``.

    Returns the paths of what could not be copied. A skeleton that is missing is empty.
    """
    try:
        source = Fd.open(path, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return []
    with source:
        skipped: list[str] = []
        _Copy(skipped).directory(source.fileno(), target.fileno(), "", frozenset(leave_out))
        return skipped


class _Copy:
    """One run through a skeleton; gathers what it had to leave out."""

    def __init__(self, skipped: list[str]) -> None:
        self._skipped = skipped

    def directory(
        self, source: int, target: int, path: str, leave_out: frozenset[str] = frozenset()
    ) -> None:
        if path.count("/") >= _DEPTH_LIMIT:
            raise InvalidArgs(f"The skeleton is nested deeper than {_DEPTH_LIMIT} directories.")
        # Sorted, so that a failure is the same at the next attempt.
        for name in sorted(os.listdir(source)):
            if name not in leave_out:
                self._entry(source, target, name, f"{path}{name}")

    def _entry(self, source: int, target: int, name: str, path: str) -> None:
        kind = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(kind.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            times = (kind.st_atime_ns, kind.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(kind.st_mode):
            self._subdirectory(source, target, name, path)
        elif stat.S_ISREG(kind.st_mode):
            _copy_file(source, target, name)
        else:
            self._skipped.append(path)

    def _subdirectory(self, source: int, target: int, name: str, path: str) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        with (
            Fd.open(name, DIRECTORY_FLAGS, dir_fd=source) as old,
            Fd.open(name, DIRECTORY_FLAGS, dir_fd=target) as new,
        ):
            self.directory(old.fileno(), new.fileno(), path + "/")
            # Last, as filling it changes its time.
            _copy_attributes(old.fileno(), new.fileno())


def _copy_file(source: int, target: int, name: str) -> None:
    new_flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    with (
        Fd.open(name, os.O_RDONLY | GUARDED_FLAGS, dir_fd=source) as old,
        Fd.open(name, new_flags, 0o600, dir_fd=target) as new,
    ):
        copy_data(old.fileno(), new.fileno())
        _copy_attributes(old.fileno(), new.fileno())


def _copy_attributes(old: int, new: int) -> None:
    _copy_user_attributes(old, new)
    found = os.fstat(old)
    # Without setuid and setgid: they would lend the rights of nobody.
    os.fchmod(new, found.st_mode & 0o1777)
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_user_attributes(old: int, new: int) -> None:
    try:
        for key in os.listxattr(old):
            # Other name spaces speak of rights and labels of the machine, not of content.
            if key.startswith("user."):
                os.setxattr(new, key, os.getxattr(old, key))
    except OSError as error:
        # One of the two file systems has none: then the files are all there is to copy.
        if error.errno != errno.EOPNOTSUPP:
            raise
