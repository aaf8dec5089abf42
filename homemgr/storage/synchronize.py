"""Make a freshly written tree durable without waiting for the rest of its file system."""

from __future__ import annotations

import os

from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd


def fsync_tree(directory: Fd) -> None:
    """Flush every regular file and directory of a tree that only we can reach."""
    # First start the writing of everything: the waiting below then shares few journal commits.
    _walk(directory.fileno(), wait=False)
    _walk(directory.fileno(), wait=True)


def _walk(directory: int, *, wait: bool) -> None:
    with os.scandir(directory) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            with Fd.open(entry.name, DIRECTORY_FLAGS, dir_fd=directory) as below:
                _walk(below.fileno(), wait=wait)
        elif entry.is_file(follow_symlinks=False):
            _flush(directory, entry.name, wait=wait)
    if wait:
        os.fsync(directory)


def _flush(directory: int, name: str, *, wait: bool) -> None:
    with Fd.open(name, os.O_RDONLY | GUARDED_FLAGS, dir_fd=directory) as file:
        if wait:
            os.fsync(file.fileno())
        else:
            # As a side effect this starts to write the dirty pages, and does not wait.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
