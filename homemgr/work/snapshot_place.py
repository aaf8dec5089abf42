"""What all verbs about snapshots begin with: the place of a home, and its snapshots, held."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.storage import paths, snapshot_exchange, snapshot_shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.work.task import Task


class Place(NamedTuple):
    """Where a home lies, and its snapshots."""

    parent: Fd
    file_name: str
    shelf: Fd


@contextmanager
def shelf_of(task: Task, *, alone: bool, make: bool = False) -> Iterator[Place]:
    """The snapshots of a home, alone or shared with others; raises NoSuchSnapshot without any.

    Who has them alone first finishes what killed processes left.
    """
    user = task.record.name
    with paths.open_safe_parent(task.image_path) as parent:
        if make:
            found: Fd | None = snapshot_shelf.make_shelf(parent, user)
        else:
            found = snapshot_shelf.open_shelf(parent, user)
        if found is None:
            raise errors.NoSuchSnapshot(f"There are no snapshots of home area {user}.")
        with found as shelf, snapshot_shelf.held(shelf, alone=alone):
            if alone:
                snapshot_exchange.sweep(parent, shelf)
            yield Place(parent, os.path.basename(task.image_path), shelf)


def teller(task: Task, phase: str) -> Callable[[int], None]:
    """Tells how many names were dealt with, and ends the job if nobody wants it any more."""

    def tell(count: int) -> None:
        task.channel.require_wanted()
        task.channel.progress({"phase": phase, "files": count})

    return tell
