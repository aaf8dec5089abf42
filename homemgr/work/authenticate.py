"""Verbs authenticate and fixate: check the credentials, tell which record counts, mount nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.work import activate, inside

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Check; gives what activate gives."""
    opened = inside.open_home(task)
    with opened.area:
        opened.write_through_if_possible()
        return activate.result(task, opened)
