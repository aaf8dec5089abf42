"""Home areas that lie on disk without a record on this machine.

Knows where images may lie and how they are named; looks at nothing inside
them. Names and the synthetic record follow systemd-homed 262.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr.record import names, storages
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)

_KEY_SLOT = "trusted.fscrypt_slot"


@dataclass(frozen=True)
class Image:
    """One image found: its path, whom it is named after, who owns it on disk, and its storage.

    Nobody owns a device, as far as that says who its user was.
    """

    path: str
    user: str
    realm: str | None
    owner: int | None
    storage: str


def scan(directories: Sequence[str]) -> dict[str, list[Image]]:
    """All images by directory; blocks.

    A directory that cannot be read is logged and left out: nothing is known about
    what is in it. One that does not exist holds nothing.
    """
    found: dict[str, list[Image]] = {}
    for directory in directories:
        try:
            entries = sorted(os.listdir(directory))
        except FileNotFoundError:
            entries = []
        except OSError as error:
            log.warning("Cannot look for home areas in %s: %s", directory, error.strerror)
            continue
        images = (assess(directory, entry) for entry in entries)
        found[directory] = [image for image in images if image is not None]
    return found


def assess(directory: str, entry: str) -> Image | None:
    """The image of this name, or None if it is not one; blocks."""
    named = names.parse_image_file_name(entry)
    if named is None:
        return None
    path = os.path.join(directory, entry)
    try:
        status = os.lstat(path)
    except OSError:
        return None
    suffixes = names.FILE_SUFFIXES.items()
    of_file = next((kind for kind, suffix in suffixes if entry.endswith(suffix)), None)
    if not (stat.S_ISDIR if of_file is None else stat.S_ISREG)(status.st_mode):
        return None
    return Image(path, *named, status.st_uid, of_file or _storage_of(path))


def _storage_of(path: str) -> str:
    """How the home in a directory is stored, as far as that makes a difference."""
    try:
        attributes = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return "directory"
    # Key slots of systemd-homed, which only root can make and which every home has whose
    # directory is encrypted for itself alone.
    is_encrypted = any(name.startswith(_KEY_SLOT) for name in attributes)
    return "fscrypt" if is_encrypted else "directory"


def synthetic_record(image: Image, machine_id: str, home_root: str) -> UserRecord:
    """What is known of a home before its own record has been read; the uid is not settled yet."""
    data: JsonObject = {"userName": image.user, "disposition": "regular"}
    if image.realm:
        data["realm"] = image.realm
    return UserRecord(data).with_binding(
        machine_id,
        {
            "imagePath": image.path,
            "homeDirectory": os.path.join(home_root, image.user),
            **storages.members(image.storage),
        },
    )
