"""Verb update: replace the record inside the home by the daemon's new one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import password
from homemgr.record.model import UserRecord
from homemgr.storage import blobs
from homemgr.work import inside

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Check the credentials against the new record, write it; gives the record that counts.

    Raises RecordDowngrade if the home holds a newer one.
    """
    new = UserRecord(task.object("new_record"))
    opened = inside.open_for_update(task, new)
    with opened.area, _rekeying(task, opened), _blobs(task, opened):
        opened.write_through()
    return {"record": opened.record.embedded().data}


def _blobs(task: Task, opened: inside.Opened) -> AbstractContextManager[None]:
    """What has the blobs that came with the new record, if any were given, be those of the home."""
    if not isinstance(task.argument("blobs"), list):
        return nullcontext()
    named = zip(task.texts("blobs"), (fd.fileno() for fd in task.fds), strict=True)
    return blobs.replaced(opened.top, dict(named))


def _rekeying(task: Task, opened: inside.Opened) -> AbstractContextManager[None]:
    """What has the home's key go with the passwords of the new record, if they are others.

    Those that were not given keep the slots that they may have: `passwd` comes after.
    """
    if not (task.abilities.has_key and opened.has_other_hashes):
        return nullcontext()
    effective = opened.record.on(task.machine)
    try:
        words = password.require_all(effective, task.secret, task.verify)
    except (errors.BadPassword, errors.BadPasswordAndNoToken, errors.BadRecoveryKey):
        return opened.area.rekeying(task.words(task.spellings()), None)
    return opened.area.rekeying(task.words(words), opened.record.embedded().pretty())
