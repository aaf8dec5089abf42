"""Verbs weigh and fit: how a home in use stands on its disk, and another size, as nobody asked for.

No record changes, so that nobody has to answer for it with a password: what a home says of its
size is what it shall come back to. Both end as soon as somebody wants to have the home.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.storage import image_resize, sizes
from homemgr.work.apart import apart

if TYPE_CHECKING:
    from homemgr.storage.kind import Area
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: How long a home may take to get smaller: so long its key stays in memory after a logout (s).
_PATIENCE_S: Final = 50.0


def weigh(task: Task) -> dict[str, object]:
    """Tell how the home stands, as `record.sizing.Standing` has it."""
    with _in_use(task) as area:
        return area.standing()._asdict()


def fit(task: Task) -> dict[str, object]:
    """Resize to ``size``; if it ``only_grows``, as far as there is room. Gives what it came to."""
    wanted = task.argument("size")
    assert isinstance(wanted, int)
    resize = _grow if task.argument("only_grows") else _resize
    with _in_use(task) as area:
        before = area.standing().size
        if task.argument("only_grows") and sizes.rounded(wanted) <= before:
            return {"size": before, "has_changed": False}
        told = apart(task.channel, lambda: {"size": resize(area, wanted)})
    return {**told, "has_changed": told["size"] != before}


def shrink(task: Task, area: Area) -> None:
    """Make a home as small as it can be that was just taken away from its user, and tell so before.

    Nobody waits for it from then on, and whoever comes ends it. Never fails. It is still open from
    when it was in use, as nothing may open it without a password.
    """
    try:
        if not image_resize.may_shrink(area.top):
            return
        task.channel.progress({"phase": "shrink"})
        if area.standing().shrinks:
            apart(task.channel, lambda: {"size": _resize(area, sizes.SMALLEST)}, _PATIENCE_S)
    except (errors.Cancelled, EOFError):
        log.debug("Home area %s does not get smaller this time.", task.record.name)
    except (errors.HomeError, OSError) as error:
        log.info("Home area %s does not get smaller: %s", task.record.name, error)


def _in_use(task: Task) -> Area:
    return task.storage.open(task.image, task.words(()), is_active=True)


def _resize(area: Area, wanted: int) -> int:
    size = area.resize(wanted)
    # Only who has it alone is told to close it first.
    assert size is not None
    return size


def _grow(area: Area, wanted: int) -> int:
    try:
        return _resize(area, wanted)
    except errors.NoDiskSpace:
        return _resize(area, sizes.LARGEST)
