"""Snapshots of a home that only gets another path: they go along, or nobody would find them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr.errors import FileNotFound, PathExists
from homemgr.storage import paths, snapshot_entry, snapshot_exchange, snapshot_shelf
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.files import Fd


def require_possible(source: Fd, target: Fd, user: str) -> None:
    """Raise PathExists or HomeBusy if the snapshots of ``user`` cannot go to ``target``."""
    with _held(source, user) as is_there:
        there = snapshot_shelf.open_shelf(target, user) if is_there else None
        if there is not None:
            with there:
                if snapshot_entry.notes(there):
                    raise PathExists(
                        f"{location(there.fileno())} holds snapshots already: remove it if they are"
                        f" not of the present home area of {user}."
                    )


def move(old_image: str, new_image: str, user: str) -> None:
    """Have the snapshots that lie beside one image lie beside the other; may be repeated."""
    # Where there is no such directory any more nothing is left to do.
    with (
        suppress(FileNotFound),
        paths.open_safe_parent(old_image) as source,
        paths.open_safe_parent(new_image) as target,
        _held(source, user) as is_there,
    ):
        if is_there:
            snapshot_shelf.move(source, target, user)


@contextmanager
def _held(source: Fd, user: str) -> Iterator[bool]:
    """Have the snapshots to oneself, with nothing half done; gives whether there are any."""
    shelf = snapshot_shelf.open_shelf(source, user)
    if shelf is None:
        yield False
        return
    with shelf, snapshot_shelf.held(shelf, alone=True):
        snapshot_exchange.sweep(source, shelf)
        yield True
