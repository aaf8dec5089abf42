"""The host copy of a record as a file, looked at: there, readable, signed, root's alone."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import signature
from homemgr.record.findings import Finding
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from homemgr.daemon.store import Store
    from homemgr.record.signature import Keyring


def look(store: Store, user: str, keyring: Keyring, *, is_known: bool) -> list[Finding]:
    """What is wrong with it; ``is_known``: the service has a good one, to write. Blocks."""
    path = store.record_path(user)
    status = store.record_status(user)
    if status is None:
        return [Finding("record-missing", path, can_repair=is_known)]
    found = []
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and ((status.st_uid, status.st_gid) != (0, 0) or mode & 0o077):
        detail = f"It belongs to {status.st_uid}:{status.st_gid} with mode {mode:04o}."
        found.append(Finding("record-mode", path, detail, can_repair=True))
    try:
        record = UserRecord.parse(store.read(user))
        if record.name != user:
            raise errors.InvalidRecord(f".userName: expected {user}, found another name.")
    except (errors.HomeError, OSError) as error:
        reason = error.message if isinstance(error, errors.HomeError) else str(error.strerror)
        return [*found, Finding("record-unreadable", path, reason, is_known)]
    try:
        signature.require_accepted(record, keyring)
    except errors.HomeError as error:
        found.append(Finding("record-signature", path, error.message, is_known))
    return found
