"""The record inside the home and the one on the host: read, verify, settle, authenticate.

Nothing is mounted before all of this succeeded. The credentials are checked
against the record that wins, so that a password change killed between the two
copies never locks anybody out.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import signature
from homemgr.record.reconcile import Mode, Reconciled, Winner, reconcile
from homemgr.record.validate import parse_embedded
from homemgr.storage import embedded

if TYPE_CHECKING:
    from homemgr.record.model import UserRecord
    from homemgr.storage.top import Top
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: What a disk answers that takes no more, or nothing at all.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Opened:
    """A home area that may be used: its top directory and the record that counts."""

    top: Top
    settled: Reconciled

    @property
    def record(self) -> UserRecord:
        """The record that counts from now on."""
        return self.settled.record

    def write_through(self) -> None:
        """Write the record into the home if the copy there is not the one that counts."""
        if self.settled.rewrite_embedded:
            embedded.write_identity(self.top, self.settled.record.embedded().pretty())

    def write_through_if_possible(self) -> None:
        """The same for a login, which a full or read-only disk must not stop.

        The host copy stays the newer one then, so that the next login tries again.
        """
        try:
            self.write_through()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            reason = os.strerror(error.errno)
            log.warning("Home area %s keeps its older record: %s", self.record.name, reason)


def open_top(task: Task) -> Top:
    """The home's top directory on disk; raises HomeAbsent if it is not there."""
    return task.storage.open_home(task.image_path)


def open_home(task: Task) -> Opened:
    """Open the home, settle which record counts and check the credentials against it.

    Raises BadSignature, RecordMismatch, HostileHome, HomeAbsent and the credential failures.
    """
    with ExitStack() as on_failure:
        top = on_failure.enter_context(open_top(task))
        settled = _settle(task, read_record(task, top))
        task.check_credentials(settled.record)
        on_failure.pop_all()
        return Opened(top, settled)


def open_for_update(task: Task, new: UserRecord) -> Opened:
    """Open the home for ``new``, which shall replace the record that counts so far.

    The credentials have to unlock both: otherwise a session left open could be
    used to replace a password that its finder does not know.
    """
    with ExitStack() as on_failure:
        top = on_failure.enter_context(open_top(task))
        found = read_record(task, top)
        current = _settle(task, found).record
        task.check_credentials(current)
        host = new.with_local_sections_of(task.record)
        settled = _lost(host) if found is None else reconcile(host, found, Mode.REQUIRE_NEWER)
        if _hashes(task, host) != _hashes(task, current):
            task.check_credentials(host)
        on_failure.pop_all()
        return Opened(top, settled)


def _hashes(task: Task, record: UserRecord) -> tuple[tuple[str, ...], ...]:
    """Everything the credentials are checked against."""
    effective = record.on(task.machine)
    return effective.hashed_passwords, effective.recovery_key_hashes, effective.token_hashes


def _settle(task: Task, found: UserRecord | None) -> Reconciled:
    """Which record counts: the host copy or the one found inside."""
    host = task.record
    if task.is_fixated:
        return _lost(host) if found is None else reconcile(host, found)
    if found is None:
        raise errors.HomeAbsent(
            f"{task.image_path} holds no user record; it is no home area of this kind."
        )
    # The host knows nothing but the name: the home's own record is all there is.
    if not found.is_same_user(host):
        raise errors.RecordMismatch(
            f"{task.image_path} holds the record of {found.user_and_realm}, "
            f"expected {host.user_and_realm}."
        )
    merged = found.with_local_sections_of(host)
    return Reconciled(merged, Winner.EMBEDDED, rewrite_host=True, rewrite_embedded=False)


def _lost(host: UserRecord) -> Reconciled:
    """The copy inside was lost or deleted: the host copy is signed and complete, write it back."""
    return Reconciled(host, Winner.HOST, rewrite_host=False, rewrite_embedded=True)


def read_record(task: Task, top: Top) -> UserRecord | None:
    """The record inside the home, with a signature we accept; None if there is none."""
    text = embedded.read_identity(top)
    if text is None:
        return None
    record = parse_embedded(text)
    signature.require_accepted(record, task.keyring)
    return record
