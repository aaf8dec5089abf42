"""What else is mounted in a home while it is in use: none of it is the home's, and none travels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.extension.stack import SOURCE
from homemgr.files import Fd
from homemgr.kernel.mountinfo import file_systems, submounts
from homemgr.storage.mountpoint import is_active
from homemgr.transfer.report import Note

if TYPE_CHECKING:
    from collections.abc import Iterator


def mounted_in(home_directory: str) -> Iterator[Note]:
    """A note for each mount in the visible home, but for those of extensions.

    What such a mount covers is the home's, and travels.
    """
    if not is_active(home_directory):
        return
    kinds = file_systems()
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    with Fd.open(home_directory, flags) as root:
        below = submounts(root.fileno())
    for mount in sorted(below, key=lambda mount: mount.mount_point):
        kind, source = kinds.get(mount.mount_id, ("", ""))
        if kind != "overlay" or source.partition("/")[0] != SOURCE:
            yield Note("mount-skipped", os.fsencode(mount.mount_point), kind)
