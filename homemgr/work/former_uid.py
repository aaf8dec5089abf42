"""Verb former-uid: which uid the record in a home that is new here asks for; unlocks nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.record.signature import require_accepted
from homemgr.record.validate import parse_embedded

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """``uid``, or nothing if the home does not say; raises BadSignature, HostileHome."""
    text = task.storage.peek(task.image)
    if text is None:
        return {}
    record = parse_embedded(text)
    # Its user may write there: he must not choose himself an id whose files lie about here.
    require_accepted(record, task.keyring)
    uid = record.on(task.machine).uid
    return {} if uid is None or not record.is_same_user(task.record) else {"uid": uid}
