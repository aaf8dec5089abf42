"""A record in the home that does not count, and when the host copy takes its place.

Whoever can damage that file could as well delete it, so the host copy counts in both cases:
it gives nobody more than he had. It must be signed by a key we accept. One kind of record is
never replaced without an administrator: a newer one that is whole, signed by a key we do not
know. That is no damage but a change made on another machine, perhaps of the password, and
the old one must not open the home as long as nobody has decided.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.job import KEEP_DAMAGED
from homemgr.record import signature
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from homemgr.job import Channel
    from homemgr.work.task import Task


@dataclass(frozen=True)
class Damage:
    """The text that lies in the place of the record."""

    channel: Channel
    text: bytes

    def keep(self) -> None:
        """Have the service keep the text; raises NoDiskSpace, SystemFailure."""
        self.channel.ask(KEEP_DAMAGED, {"text": base64.b64encode(self.text).decode()})


def replaced_by_host_copy(task: Task, text: bytes) -> bool:
    """Whether the host copy counts in the place of ``text``, which was not accepted."""
    if not task.is_fixated or not signature.verdict(task.record, task.keyring).is_accepted:
        return False
    try:
        found = UserRecord.parse(text)
        # Another's record: another's home, which must not be shown to this user.
        return found.is_same_user(task.record) and not _is_of_another_machine(found, task.record)
    except errors.InvalidRecord:
        return True


def _is_of_another_machine(found: UserRecord, host: UserRecord) -> bool:
    stamp, ours = found.last_change_usec, host.last_change_usec
    is_newer = stamp is not None and (ours is None or stamp > ours)
    return is_newer and signature.named_signer(found) is not None
