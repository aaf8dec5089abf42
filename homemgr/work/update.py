"""Verb update: replace the record inside the home by the daemon's new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.record.model import UserRecord
from homemgr.storage import blobs
from homemgr.work import inside

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Check the credentials against the new record, write it; gives the record that counts.

    Raises RecordDowngrade if the home holds a newer one.
    """
    new = UserRecord(task.object("new_record"))
    opened = inside.open_for_update(task, new)
    with opened.top:
        if isinstance(task.argument("blobs"), list):
            named = zip(task.texts("blobs"), (fd.fileno() for fd in task.fds), strict=True)
            blobs.write_blobs(opened.top, dict(named))
        opened.write_through()
    return {"record": opened.record.embedded().data}
