"""What is cleaned up among the snapshots of homes: at each start, and when a home has changed."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.record import names, snapshots
from homemgr.storage import snapshot_entry, snapshot_exchange, snapshot_shelf, snapshot_views
from homemgr.storage.directory import GONE_PREFIX, original_name
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.files import Fd

log = logging.getLogger(__name__)


def orphans(parent: Fd) -> None:
    """Have no snapshots of homes whose removal was cut short; called before that is finished."""
    for entry in os.listdir(parent.fileno()):
        if entry.startswith(GONE_PREFIX):
            try:
                set_aside_without(parent, original_name(entry, GONE_PREFIX))
            except (HomeError, OSError) as error:
                _stays(parent, error)


def set_aside_without(parent: Fd, file_name: str) -> None:
    """Have no snapshots of the user whose home was called so, if ``parent`` has none of his.

    Whoever has the name by now may have a home that is stored otherwise, and is called so.
    """
    named = names.parse_image_file_name(file_name)
    there = map(names.parse_image_file_name, os.listdir(parent.fileno()))
    if named is not None and not any(one is not None and one[0] == named[0] for one in there):
        snapshot_shelf.set_aside(parent, named[0])


def sweep(parent: Fd) -> None:
    """Finish or delete what was left half done, and drop what was kept long enough."""
    try:
        snapshot_shelf.sweep_aside(parent)
        users = snapshot_shelf.users(parent)
    except (HomeError, OSError) as error:
        _stays(parent, error)
        return
    for user in users:
        try:
            _sweep_user(parent, user)
        except (HomeError, OSError) as error:
            _stays(parent, error)


def _sweep_user(parent: Fd, user: str) -> None:
    with ExitStack() as opened:
        shelf = snapshot_shelf.open_shelf(parent, user)
        if shelf is None:
            return
        opened.enter_context(shelf)
        opened.enter_context(snapshot_shelf.held(shelf, alone=True))
        snapshot_exchange.sweep(parent, shelf)
        prune(shelf, snapshot_entry.notes(shelf), snapshots.KEPT)


def prune(shelf: Fd, existing: list[snapshots.Note], kept: int) -> list[snapshots.Note]:
    """Delete those whose time is over, unless somebody looks at them; gives those that stay."""
    gone = set()
    for name in snapshots.surplus(existing, time.time_ns() // 1000, kept):
        if not snapshot_views.mounted_at(shelf, name):
            snapshot_entry.remove(shelf, name)
            gone.add(name)
    return [note for note in existing if note.name not in gone]


def drop(parent: Fd, user: str, is_dropped: Callable[[snapshots.Note], bool]) -> None:
    """Delete some snapshots of ``user``; may be repeated."""
    with ExitStack() as opened:
        shelf = snapshot_shelf.open_shelf(parent, user)
        if shelf is not None:
            opened.enter_context(shelf)
            opened.enter_context(snapshot_shelf.held(shelf, alone=True))
            snapshot_exchange.sweep(parent, shelf)
            for note in snapshot_entry.notes(shelf):
                if is_dropped(note):
                    snapshot_entry.remove(shelf, note.name)
            if not os.listdir(shelf.fileno()):
                snapshot_shelf.set_aside(parent, user)
    snapshot_shelf.sweep_aside(parent, user)


def _stays(parent: Fd, error: Exception) -> None:
    log.warning("Snapshots in %s stay as they are: %s", location(parent.fileno()), error)
