"""The home that is sent, open to be read: as it lies there, through its use, or for us alone.

A tree can be read whoever is logged in. What has to be opened is open while its user is, who has
the key in memory or the file system mounted; or else we open it, with nobody in it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeError, HomeNotActive
from homemgr.record.storages import is_tree
from homemgr.storage import paths, staging
from homemgr.work.exclusion import alone_with_home

if TYPE_CHECKING:
    from homemgr.storage.kind import Area
    from homemgr.storage.top import Top
    from homemgr.work.task import Task


class Reading:
    """One home at a time open in one way; of no use after its block."""

    def __init__(self, task: Task) -> None:
        """Open nothing yet."""
        self._task = task
        #: Whether it can be read as it lies there.
        self.is_tree = is_tree(task.effective.storage)
        #: Whether nobody else can use it until this run has ended.
        self.is_alone = False
        #: Which tree, or image, it is (`staging.tree_id`), as far as that is settled.
        self.tree = ""
        self._area: Area | None = None
        self._is_used = False
        self._closing = ExitStack()

    @property
    def top(self) -> Top:
        """Its top directory, until it is let go of."""
        assert self._area is not None
        return self._area.top

    @property
    def is_open(self) -> bool:
        """Whether it can be read now."""
        return self._area is not None

    def open_tree(self) -> None:
        """Open what lies there as it is."""
        self._area = self._task.open_area()
        self.tree = staging.tree_id(self.top.fd)

    def open_used(self) -> bool:
        """Open it through its use, which lasts until `let_go`; False if that has just ended.

        Raises HomeLocked.
        """
        try:
            self._task.channel.ask("use", {})
        except HomeNotActive:
            return False
        self._is_used = True
        self._area = self._task.storage.open_used(self._task.image)
        return True

    def let_go(self) -> None:
        """Keep nobody's use from ending; what is not open through that stays open."""
        if self._is_used:
            self._close()
            self._task.channel.ask("unuse", {})
            self._is_used = False

    def open_alone(self) -> None:
        """Have it with nobody else at work on it, who is kept out by now: open it if need be."""
        if self.is_alone:
            return
        self._closing.enter_context(alone_with_home(self._task))
        if not self.is_tree:
            with paths.open_safe_parent(self._task.image_path) as parent:
                self.tree = staging.tree_at(parent, os.path.basename(self._task.image_path))
            self._area = self._task.open_checked()
        self.is_alone = True

    def _close(self) -> None:
        area, self._area = self._area, None
        if area is not None:
            area.close()

    def __enter__(self) -> Reading:
        """Own what is open until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, and say so: who waits to close or lock it need not wait for last words."""
        try:
            # The daemon may be gone, or has called this off.
            with suppress(HomeError, OSError, EOFError):
                self.let_go()
        finally:
            self._close()
            self._closing.close()
