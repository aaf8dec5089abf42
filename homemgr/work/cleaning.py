"""Take the traces of extensions out of a home that is at rest, or about to leave this machine."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.extension import attach, clean, home_side
from homemgr.work import extensions

if TYPE_CHECKING:
    from homemgr.extension.clean import Layers
    from homemgr.extension.image import Extension
    from homemgr.files import Fd
    from homemgr.work.task import Task

log = logging.getLogger(__name__)


class MergedLayers:
    """What had been merged into a home, as the daemon remembers it; opened when asked for.

    Owns what it opened until the end of its ``with`` block.
    """

    def __init__(self, task: Task) -> None:
        """Open nothing yet."""
        self._task = task
        self._closing = ExitStack()
        self._opened: list[Extension] | None = None

    def __call__(self, hierarchy: str) -> Layers:
        """The layers of ``hierarchy``; those of extensions that are gone are missing."""
        if self._opened is None:
            self._opened = self._open()
        outcome = extensions.Outcome()
        return list(extensions.layers_of(hierarchy, self._opened, outcome, self._closing))

    def _open(self) -> list[Extension]:
        order = extensions.order_of(self._task, "merged")
        if order is None:
            return []
        ids = extensions.local_ids(self._task)
        return extensions.open_all(order, ids, self._closing).opened

    def __enter__(self) -> MergedLayers:
        """Own until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go, whatever happened."""
        self._closing.close()


def clean_home(task: Task, top: Fd) -> None:
    """Clean a home in which nothing is merged any more, given its top on disk or a plain view.

    What cannot be taken out is logged: the user is gone, and the next merge tries again.
    """
    try:
        if not home_side.is_used(top):
            return
        with MergedLayers(task) as layers:
            problems = clean.clean(top, layers).problems
    except (errors.HomeError, OSError) as error:
        problems = [attach.reason_of(error)]
    for problem in problems:
        log.warning("Home area %s: %s", task.record.name, problem)
