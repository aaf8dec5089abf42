"""Where snapshots are mounted.

The kernel alone knows, so that nothing has to be remembered: such a mount outlives the
service, goes with the machine, and is found by what it is a mount of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from homemgr.kernel.mountinfo import mount_roots
from homemgr.storage import snapshot_entry, snapshot_shelf

if TYPE_CHECKING:
    from homemgr.files import Fd


class View(NamedTuple):
    """A mount of a snapshot: its name, the top directory of its files, and where it is seen."""

    name: str
    files: os.stat_result
    point: str


def mounted_at(shelf: Fd, name: str) -> tuple[str, ...]:
    """Where the snapshot ``name`` is mounted; raises NoSuchSnapshot."""
    with snapshot_entry.open_place(shelf, name) as place:
        found = os.stat(snapshot_entry.HOME, dir_fd=place.fileno(), follow_symlinks=False)
    return tuple(
        view.point for view in views() if view.name == name and os.path.samestat(view.files, found)
    )


def views() -> list[View]:
    """Every mount of a snapshot in this mount namespace."""
    found = []
    for root, point in mount_roots():
        rest, _, last = root.rpartition("/")
        above, _, name = rest.rpartition("/")
        if last == snapshot_entry.HOME and f"/{snapshot_shelf.DIRECTORY}/" in f"{above}/":
            try:
                found.append(View(name, os.stat(point), point))
            except OSError:
                # Covered by another mount, or just gone.
                continue
    return found
