"""What a home takes of a disk: what its files hold, what is allocated for it, what could go.

Of directories the file system may know (`limits`); else every file is looked at, which is never
done while somebody waits to log in. An image takes what its file has, used or not.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.storage import directory, image_file, limits
from homemgr.storage.directory import GONE_PREFIX, NEW_PREFIX, original_name
from homemgr.storage.paths import open_safe_parent
from homemgr.storage.reader import LEAVE, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of what stat(2) counts blocks in.
_BLOCK: Final = 512


class Usage(NamedTuple):
    """In bytes; None for what cannot be known, or not without looking at every file."""

    #: What the files hold, holes included.
    logical: int | None
    #: What is allocated on disk.
    physical: int
    #: Of `physical` and of what lies beside the home: what nobody would miss.
    reclaimable: int | None
    #: Who counted: "quota", "files" or "image".
    counted_by: str


class _Sum(NamedTuple):
    logical: int
    physical: int


def of_directory(image_path: str, *, counts_files: bool) -> Usage:
    """Of a home that is a directory; every file is looked at if that is asked for or has to be.

    What else lies beside it is to be deleted by a sweep. Raises HomeAbsent, HostileHome.
    """
    with open_safe_parent(image_path) as parent:
        left = sum(_left_over(parent, os.path.basename(image_path)))
    with directory.open_home(image_path) as top:
        taken = limits.taken(top.fd)
        if taken is not None and not counts_files:
            return Usage(None, taken.usage, left, "quota")
        found = _count(top.fd)
    if taken is not None:
        return Usage(found.logical, taken.usage, left, "quota")
    return Usage(found.logical, found.physical, left, "files")


def of_image(image_path: str, home_directory: str | None) -> Usage:
    """Of a home that is an image; what is free in it can be seen at ``home_directory`` only."""
    with open_safe_parent(image_path) as parent:
        left = sum(_left_over(parent, os.path.basename(image_path)))
    with image_file.open_image(image_path) as image:
        size, allocated = image_file.extent(image)
    if home_directory is None:
        return Usage(None, allocated, None, "image")
    with Fd.open(home_directory, DIRECTORY_FLAGS) as top:
        inside = os.fstatvfs(top.fileno())
    free = inside.f_bfree * inside.f_frsize
    used = inside.f_blocks * inside.f_frsize - free
    return Usage(used, allocated, left + max(0, allocated - (size - free)), "image")


def _left_over(parent: Fd, file_name: str) -> Iterator[int]:
    """Bytes of each that was to become this home, or was one."""
    for entry in os.listdir(parent.fileno()):
        prefixes = [p for p in (NEW_PREFIX, GONE_PREFIX) if entry.startswith(p)]
        if not any(original_name(entry, prefix) == file_name for prefix in prefixes):
            continue
        try:
            # Only looked at: what is no directory is not opened in earnest.
            with openat2(parent.fileno(), entry, os.O_PATH, RESOLVE_NO_SYMLINKS) as one:
                found = os.fstat(one.fileno())
            tree = directory.open_tree(parent, entry) if stat.S_ISDIR(found.st_mode) else None
        except FileNotFoundError:
            continue
        if tree is None:
            yield found.st_blocks * _BLOCK
            continue
        with tree:
            yield _count(tree).physical


def _count(top: Fd) -> _Sum:
    """Every file once, whatever names it has."""
    logical = physical = 0
    linked: set[int] = set()
    for step in walk(top):
        found = step.stat
        if step.what == LEAVE or found.st_ino in linked:
            continue
        if stat.S_ISREG(found.st_mode):
            logical += found.st_size
            if found.st_nlink > 1:
                linked.add(found.st_ino)
        physical += found.st_blocks * _BLOCK
    return _Sum(logical, physical)
