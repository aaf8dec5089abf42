"""How large homes are and what they take, as cheaply as the kernel tells it: no file is counted.

Members and rules are those of the status of user records as systemd-homed 262 has it, for what
lies where; what nobody counts is left out.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.statfs import file_system_type
from homemgr.storage import directory, image_file, image_layout, limits, sizes

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

#: What `file_system_type` gives, under the name that mount(8) has for it.
_TYPES: Final = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
}
#: The least that file systems of images can be.
_SMALLEST: Final = {"ext4": 32 << 20, "xfs": 300 << 20, "btrfs": 256 << 20}
_FIELDS: Final = ("diskSize", "diskUsage", "diskFree", "diskCeiling", "diskFloor", "fileSystemType")


def measure(storage: str, image_path: str, home_directory: str, *, is_active: bool) -> JsonObject:
    """The status members of a home, None for what is not known; blocks as long as its disk does."""
    found: JsonObject = dict.fromkeys(_FIELDS)
    # A home that is not there, or not as it should be, has no size; others say what is wrong.
    with suppress(HomeError, OSError):
        if storage in ("directory", "subvolume", "fscrypt"):
            found |= _of_directory(image_path)
        elif storage in ("luks", "image"):
            found |= _of_image(image_path, home_directory if is_active else None)
    return found


def _of_directory(image_path: str) -> dict[str, Json]:
    with directory.open_home(image_path) as top:
        disk = os.fstatvfs(top.fd.fileno())
        taken = limits.taken(top.fd)
        kind = _TYPES.get(file_system_type(top.fd.fileno()))
    size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    usage = None if taken is None else taken.usage
    if taken is not None and taken.limit:
        size = min(size, taken.limit)
        free = min(free, max(0, size - taken.usage))
    return {
        "diskSize": size,
        "diskUsage": usage,
        "diskFree": free,
        "diskCeiling": sizes.MOST,
        "diskFloor": max(sizes.LEAST, usage or 0),
        "fileSystemType": kind,
    }


def _of_image(image_path: str, home_directory: str | None) -> dict[str, Json]:
    with image_file.open_image(image_path) as image:
        size, allocated = image_file.extent(image)
        beside = os.fstatvfs(image.fileno())
        is_disk = image_layout.is_disk(image)
    # Beside a disk there is nothing, whatever the file system says in which its node is.
    most = size if is_disk else max(size, allocated + beside.f_bavail * beside.f_frsize)
    figures: dict[str, Json] = {
        "diskSize": size,
        "diskUsage": allocated,
        "diskCeiling": min(sizes.MOST, most),
    }
    if home_directory is None:
        return figures
    with Fd.open(home_directory, DIRECTORY_FLAGS) as top:
        inside = os.fstatvfs(top.fileno())
        kind = _TYPES.get(file_system_type(top.fileno()))
        mode = os.fstat(top.fileno()).st_mode & 0o7777
    free = inside.f_bavail * inside.f_frsize
    overhead = size - inside.f_blocks * inside.f_frsize
    usage = min(allocated, max(0, size - free))
    smallest = _SMALLEST.get(kind or "", 0) + overhead
    return {
        **figures,
        "diskUsage": usage,
        "diskFree": free,
        "diskFloor": max(sizes.LEAST, smallest, usage),
        "fileSystemType": kind,
        "accessMode": mode,
    }
