"""The record inside the home and the one on the host: read, verify, settle, authenticate.

Nothing is mounted before all of this succeeded. The credentials are checked
against the record that wins, so that a password change killed between the two
copies never locks anybody out. A copy inside that is missing or damaged counts as
lost (see `damage`): the host copy is used, and replaces it once somebody has authenticated.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import signature
from homemgr.record.model import UserRecord
from homemgr.record.reconcile import Mode, Reconciled, Winner, reconcile
from homemgr.record.validate import parse_embedded
from homemgr.storage import embedded
from homemgr.work import blob_copies
from homemgr.work.damage import Damage, Obstacle, counts_alone, replaced_by_host_copy

if TYPE_CHECKING:
    from homemgr.storage.kind import Area
    from homemgr.storage.top import Top
    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: What a disk answers that takes no more, or nothing at all.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Opened:
    """A home area that may be used: open, with the record that counts."""

    area: Area
    settled: Reconciled
    #: What lies in the place of the home's own record, if it does not count.
    damage: Damage | Obstacle | None = None
    #: Whether other passwords and recovery keys are to unlock it than before.
    has_other_hashes: bool = False

    @property
    def top(self) -> Top:
        """Its top directory on disk."""
        return self.area.top

    @property
    def record(self) -> UserRecord:
        """The record that counts from now on."""
        return self.settled.record

    def write_through(self) -> None:
        """Write the record into the home if the copy there is not the one that counts."""
        if self.settled.rewrite_embedded:
            self.write(self.settled.record)

    def write(self, record: UserRecord) -> None:
        """Make ``record`` the home's own, after what lies there damaged was kept.

        Raises NoDiskSpace and SystemFailure if that cannot be kept; then it is as it was.
        """
        if self.damage is not None:
            self.damage.keep()
        text = record.embedded().pretty()
        self.area.write_record(text)

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
        except errors.HomeError as error:
            log.warning("Home area %s keeps its damaged record: %s", self.record.name, error)


def _open_area(task: Task) -> Area:
    """Open the home; if the credentials do not, say which of them are missing most.

    Nothing but a key can keep what is not encrypted from being mounted: there the password
    has to be right before that.
    """
    if not task.abilities.has_key:
        return task.open_area(lambda found: task.check_credentials(_settle(task, found).record))
    try:
        return task.open_area()
    except errors.BadPassword:
        # Of a home on a server the credentials were checked before that.
        if task.abilities.is_remote or not task.is_fixated:
            raise
        task.check_credentials(task.record)
        if not task.token_words.words:
            raise
    # A token was asked by now, and has said the word for a key slot.
    return task.open_area()


def open_home(task: Task) -> Opened:
    """Open the home, settle which record counts and check the credentials against it.

    Raises BadSignature, RecordMismatch, HostileHome, HomeAbsent and the credential failures.
    """
    with ExitStack() as on_failure:
        area = on_failure.enter_context(_open_area(task))
        found, damage = _read(task, area.top)
        settled = _settle(task, found)
        task.check_credentials(settled.record)
        blob_copies.settle(task, area.top, settled)
        on_failure.pop_all()
        return Opened(area, settled, damage)


def record_in_effect(task: Task, top: Top) -> UserRecord:
    """The record that counts now, without anybody's credentials: other files shall have it.

    Raises BadSignature, RecordMismatch and HostileHome, as a login would.
    """
    found, _ = _read(task, top)
    return _settle(task, found).record


def open_for_update(task: Task, new: UserRecord) -> Opened:
    """Open the home for ``new``, which shall replace the record that counts so far.

    The credentials have to unlock both: otherwise a session left open could be
    used to replace a password that its finder does not know.
    """
    with ExitStack() as on_failure:
        area = on_failure.enter_context(_open_area(task))
        found, damage = _read(task, area.top)
        before = _settle(task, found)
        current = before.record
        task.check_credentials(current)
        host = new.with_local_sections_of(task.record)
        settled = _lost(host) if found is None else reconcile(host, found, Mode.REQUIRE_NEWER)
        has_other_hashes = _hashes(task, host) != _hashes(task, current)
        if has_other_hashes:
            task.check_credentials(host)
        blob_copies.settle(task, area.top, before)
        on_failure.pop_all()
        return Opened(area, settled, damage, has_other_hashes)


def _hashes(task: Task, record: UserRecord) -> tuple[tuple[str, ...], ...]:
    """Everything the credentials are checked against."""
    effective = record.on(task.machine)
    return effective.hashed_passwords, effective.recovery_key_hashes, effective.token_hashes


def _settle(task: Task, found: UserRecord | None) -> Reconciled:
    """Which record counts: the host copy or the one found inside."""
    host = task.record
    if task.is_fixated:
        if found is not None:
            return reconcile(host, found)
        # Its key may have been taken from the accepted ones since the service read it.
        signature.require_accepted(host, task.keyring)
        return _lost(host)
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
    if _is_older_than_the_lost(task, found):
        kept = _kept(task, found).with_local_sections_of(host)
        log.warning("The record in %s is older than the lost one, which was kept.", task.image_path)
        return replace(reconcile(kept, found), rewrite_host=True)
    merged = found.with_local_sections_of(host)
    return Reconciled(merged, Winner.EMBEDDED, rewrite_host=True, rewrite_embedded=False)


def _is_older_than_the_lost(task: Task, found: UserRecord) -> bool:
    """Whether this machine had a newer record, which was lost or damaged."""
    least = task.argument("least_change_usec")
    return isinstance(least, int) and (found.last_change_usec or 0) < least


def _kept(task: Task, found: UserRecord) -> UserRecord:
    """The record that was lost, from where it is kept besides; raises RecordDowngrade."""
    kept = task.argument("kept_record")
    if isinstance(kept, dict):
        record = UserRecord(kept)
        if signature.verdict(record, task.keyring).is_accepted:
            return record
    raise errors.RecordDowngrade(
        f"The record in {task.image_path} is older than the one of {found.user_and_realm} that"
        f" this machine had, which is lost: its lastChangeUSec is {found.last_change_usec or 0},"
        f" expected at least {task.argument('least_change_usec')}. Bring the lost one back; or"
        f" delete {task.text('stamp_file')} to accept the older one, with the password and the"
        " rights of that time."
    )


def _lost(host: UserRecord) -> Reconciled:
    """The copy inside was lost or deleted: the host copy is signed and complete, write it back."""
    return Reconciled(host, Winner.HOST, rewrite_host=False, rewrite_embedded=True)


def _read(task: Task, top: Top) -> tuple[UserRecord | None, Damage | Obstacle | None]:
    """The record inside the home, with a signature we accept; or what lies there in its place.

    Raises BadSignature and HostileHome if that is not to be replaced by the host copy.
    """
    try:
        text = embedded.read_identity(top)
    except errors.HostileHome as error:
        # Another name for it or a directory in its place: who can do that could delete it as well.
        if not counts_alone(task):
            raise
        log.warning("The record in home area %s does not count: %s", task.record.name, error)
        return None, Obstacle(top)
    if text is None:
        return None, None
    try:
        record = parse_embedded(text)
        signature.require_accepted(record, task.keyring)
    except (errors.HostileHome, errors.BadSignature, errors.InvalidRecord) as error:
        if not replaced_by_host_copy(task, text):
            raise
        log.warning("The record in home area %s does not count: %s", task.record.name, error)
        return None, Damage(task.channel, text)
    return record, None
