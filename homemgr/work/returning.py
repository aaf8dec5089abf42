"""Verb returnable: whether a converted home and the one that was kept of it can change places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import HomeAbsent, PathExists
from homemgr.record.names import is_device
from homemgr.storage import rooms

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Tell which ``image`` is in the place of a home, if that and what is kept can.

    It may be another one than was put there: a snapshot that was restored, a smaller copy; and
    empty if it ``may_be_gone``. Raises HomeAbsent or PathExists if they cannot, or have begun to.
    """
    path, kept = task.text("image_path"), task.text("kept")
    image = rooms.image_at(path)
    if not image and (rooms.is_there(path) or not task.argument("may_be_gone")):
        raise HomeAbsent(
            f"There is no home area at {path}. With --force the one that was kept comes back."
        )
    if rooms.image_at(kept) != task.text("kept_image"):
        hint = " (is it plugged in?)" if is_device(kept) else ""
        raise HomeAbsent(f"The home area that was kept is not at {kept} any more{hint}.")
    for free in task.texts("free"):
        if rooms.is_there(free):
            raise PathExists(f"{free} exists, where a home area is to be put; move it away.")
    return {"image": image}
