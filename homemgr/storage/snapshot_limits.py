"""The size that a home is held to, when other files take the place of its own.

What was the home and is a snapshot now counts for nobody; what is the home counts from now on.
May be repeated after a kill: the old files say what there was until all is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.kernel import qgroup
from homemgr.kernel.btrfs import is_subvolume
from homemgr.storage import projects

if TYPE_CHECKING:
    from homemgr.files import Fd


def hand_over(old: Fd, new: Fd) -> None:
    """Hold ``new`` to what ``old`` was held to, and ``old`` to nothing any more."""
    if is_subvolume(old.fileno()):
        found = qgroup.usage(old.fileno())
        if found is not None and found.limit:
            qgroup.set_limit(new.fileno(), found.limit)
        return
    projects.hand_over(old, new)
