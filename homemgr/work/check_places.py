"""Verbs check-places and repair-places: what killed operations left beside homes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.storage import paths, rooms
from homemgr.storage.directory import (
    GONE_PREFIX,
    NEW_PREFIX,
    SNAPSHOT_PREFIX,
    lock_tree,
    sweep_one,
)
from homemgr.work.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.work.task import Task

_SWEPT = (NEW_PREFIX, GONE_PREFIX, SNAPSHOT_PREFIX)


def run(task: Task) -> dict[str, object]:
    """Tell what was left in the given directories."""
    return {"findings": [trouble.told().to_json() for trouble in _places(task)]}


def repair(task: Task) -> dict[str, object]:
    """Delete it, as a start of the service does."""
    return {"findings": [trouble.mended().to_json() for trouble in _places(task)]}


def _places(task: Task) -> Iterator[Trouble]:
    for path in task.texts("directories"):
        try:
            parent = paths.open_safe_parent(os.path.join(path, "any"))
        except errors.HomeError:
            # Missing, or told of with the homes that lie there.
            continue
        with parent:
            for name in sorted(os.listdir(parent.fileno())):
                if name.startswith(rooms.PREFIX):
                    # Which of them conversions know the daemon says.
                    yield Trouble("leftover-room", os.path.join(path, name))
                elif name.startswith(_SWEPT) and _is_idle(parent, name):
                    yield Trouble(
                        "leftover-tree", os.path.join(path, name), "", _sweeping(path, name)
                    )


def _is_idle(parent: Fd, name: str) -> bool:
    """Whether nobody works on it; what is no directory of ours is not for us to judge."""
    tree = lock_tree(parent, name)
    if tree is None:
        return False
    tree.close()
    return True


def _sweeping(path: str, name: str) -> Callable[[], None]:
    def mend() -> None:
        with paths.open_safe_parent(os.path.join(path, "any")) as parent:
            if not sweep_one(parent, name):
                raise errors.HomeBusy(f"{path}/{name} cannot be deleted now; see the log.")

    return mend
