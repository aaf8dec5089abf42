"""Homes that systemd-homed made as btrfs subvolumes: opened and removed like directories.

Making new ones, quota and snapshots are not offered by this version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import NotSupported
from homemgr.storage.directory import delete_aside, open_home, set_aside, sweep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.files import Fd

__all__ = ["create", "delete_aside", "open_home", "set_aside", "sweep"]


def create(
    base: Fd,
    file_name: str,
    *,
    access_mode: int,
    skeleton: str | None,
    identity: bytes,
    blobs: Mapping[str, int],
) -> list[str]:
    """Refuse: a directory can do what this version can do for a subvolume."""
    del base, access_mode, skeleton, identity, blobs
    raise NotSupported(
        f"{file_name} cannot be made as a subvolume by this version; use storage directory."
    )
