"""Storage `subvolume`: the home is a subvolume of btrfs, for all else like a directory.

What it has more are snapshots, see `storage.snapshot`, and a limit, see
`storage.limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import NotSupported
from homemgr.kernel.btrfs import create_subvolume
from homemgr.kernel.statfs import BTRFS_SUPER_MAGIC, file_system_type
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from homemgr.files import Fd


def is_possible(parent: Fd) -> bool:
    """Whether there can be subvolumes in a directory."""
    return file_system_type(parent.fileno()) == BTRFS_SUPER_MAGIC


def make_subvolume(parent: Fd, name: str) -> None:
    """Make an empty subvolume. In a directory that others may enter they may enter it too."""
    if not is_possible(parent):
        raise NotSupported(
            f"{location(parent.fileno())} is not on btrfs: homes there cannot be subvolumes;"
            " use storage directory."
        )
    create_subvolume(parent.fileno(), name)
