"""Verb resize: hold the home to a size, and have its record say so.

The storage comes first: killed before the record is written the home has the new size, and the
same call once more writes that down. Runs beside the user's session; no login waits for it but
of this very home.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.record import changes, signature
from homemgr.work import inside
from homemgr.work.passwd import now_usec

if TYPE_CHECKING:
    from homemgr.record.model import UserRecord
    from homemgr.work.inside import Opened
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Resize to the bytes, or the word of `storage.sizes`, in ``size``; gives the new record."""
    wanted = task.argument("size")
    assert isinstance(wanted, int)
    opened = inside.open_home(task)
    with opened.area:
        if wanted != opened.record.on(task.machine).disk_size:
            # The one inside may be newer, and somebody else's to change.
            signature.require_ours(opened.record, task.keyring)
        size = opened.area.resize(wanted)
        if size is not None:
            return _write_down(task, opened, wanted, size)
    size = task.storage.resize_closed(task.image, task.words(task.spellings()), wanted)
    opened = inside.open_home(task)
    with opened.area:
        return _write_down(task, opened, wanted, size)


def _write_down(task: Task, opened: Opened, wanted: int, size: int) -> dict[str, object]:
    record = opened.record
    # Somebody else's record may name a size that is no number of whole blocks.
    if record.on(task.machine).disk_size not in (wanted, size):
        record = _with_size(task, record, size)
    if record is opened.record:
        opened.write_through_if_possible()
    else:
        opened.write(record)
    return {"record": record.embedded().data, "size": size}


def _with_size(task: Task, record: UserRecord, size: int) -> UserRecord:
    """The record that says ``size``, signed."""
    changed = changes.with_disk_size(record, task.machine.id, size, now_usec(task))
    key = signature.PrivateKey.from_pem(task.text("private_key").encode())
    return signature.sign(changed, key)
