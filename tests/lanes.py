"""How pytest-xdist deals out the files of a whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


#: Its tests share nothing, and each takes longer than most files: they go to lanes one by one.
GUESTS = "tests/world/test_verity.py"


class FromBothEnds(LoadFileScheduling):
    """Every second lane takes the last file instead of the first, until they meet."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return nodeid if scope == GUESTS else scope

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
