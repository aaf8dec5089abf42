"""A record in the home that does not count, and when the host copy takes its place.

Whoever can damage that file could as well delete it, so the host copy counts in both cases:
it gives nobody more than he had. It must be signed by a key we accept. One kind of record is
never replaced without an administrator: a newer one that is whole, signed by a key we do not
know. That is no damage but a change made on another machine, perhaps of the password, and
the old one must not open the home as long as nobody has decided.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.job import KEEP_DAMAGED
from homemgr.kernel.identity import filesystem_identity
from homemgr.record import signature
from homemgr.record.model import UserRecord
from homemgr.storage.embedded import IDENTITY

if TYPE_CHECKING:
    from homemgr.job import Channel
    from homemgr.storage.top import Top
    from homemgr.work.task import Task


@dataclass(frozen=True)
class Damage:
    """The text that lies in the place of the record."""

    channel: Channel
    text: bytes

    def keep(self) -> None:
        """Have the service keep the text; raises NoDiskSpace, SystemFailure."""
        self.channel.ask(KEEP_DAMAGED, {"text": base64.b64encode(self.text).decode()})


@dataclass(frozen=True)
class Obstacle:
    """What lies in the place of the record and is no file that could be read as one."""

    top: Top

    def keep(self) -> None:
        """Give it another name in the home; raises NoDiskSpace, SystemFailure."""
        kept = f"{IDENTITY}.kept-{secrets.token_hex(4)}"
        fd = self.top.fd.fileno()
        try:
            with filesystem_identity(self.top.disk_uid, self.top.disk_gid):
                os.rename(IDENTITY, kept, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError as error:
            raise errors.from_os_error(error, f"Renaming {IDENTITY} to {kept}") from error


def counts_alone(task: Task) -> bool:
    """Whether the host copy counts where none can be read in the home."""
    return task.is_fixated and signature.verdict(task.record, task.keyring).is_accepted


def replaced_by_host_copy(task: Task, text: bytes) -> bool:
    """Whether the host copy counts in the place of ``text``, which was not accepted."""
    if not counts_alone(task):
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
