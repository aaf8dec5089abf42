"""A file system as a new mount that is attached nowhere, and that nobody can write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.kernel.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    fsconfig_set_flag,
    fsconfig_set_string,
    fsopen,
)
from homemgr.volume import file_system

if TYPE_CHECKING:
    from homemgr.files import Fd

#: What every layer has, whatever the overlay on top of it allows.
ATTRIBUTES = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV

#: Options each file system needs to leave its device alone.
_OPTIONS = {"ext4": ("noload",)}


def mount_new(kind: str, source: str) -> Fd:
    """What is on the device or in the file ``source``."""
    with fsopen(kind) as fs:
        fsconfig_set_string(fs.fileno(), "source", source)
        # The device is read-only, and is not opened otherwise.
        fsconfig_set_flag(fs.fileno(), "ro")
        for option in _OPTIONS.get(kind, ()):
            fsconfig_set_flag(fs.fileno(), option)
        return created(fs)


def created(fs: Fd) -> Fd:
    """The file system whose options are all set; OSError with all it has to say."""
    return file_system.created(fs, ATTRIBUTES)
