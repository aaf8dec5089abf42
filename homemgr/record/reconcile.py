"""Host record against the record embedded in the home: which one is in effect.

Pure comparison of stamps and contents; writing the loser anew is the caller's.
Implements homed's table of reconciliation, except that an update which meets a
newer embedded record is refused instead of being dropped silently (its defect 8).
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr.errors import HostileHome, RecordDowngrade, RecordMismatch, SystemFailure
from homemgr.record.model import NOT_EMBEDDED

if TYPE_CHECKING:
    from homemgr.record.model import UserRecord


class Mode(enum.Enum):
    """How new the host record has to be."""

    ANY = "any"  # activate, inspect, fixate, authenticate
    REQUIRE_NEWER = "require_newer"  # update
    REQUIRE_NEWER_OR_EQUAL = "require_newer_or_equal"  # password change, resize


class Winner(enum.Enum):
    """Whose signed content is in effect."""

    HOST = "host"
    EMBEDDED = "embedded"
    IDENTICAL = "identical"


@dataclass(frozen=True)
class Reconciled:
    """The record in effect, and which copies have to be written to hold it."""

    record: UserRecord
    winner: Winner
    rewrite_host: bool
    rewrite_embedded: bool


def reconcile(host: UserRecord, embedded: UserRecord, mode: Mode = Mode.ANY) -> Reconciled:
    """Settle which record counts; the result never holds a secret.

    Raises RecordMismatch for another user, RecordDowngrade if the home holds a newer
    record than the mode allows, HostileHome for sections an embedded record must not have.
    """
    _check_pair(host, embedded)
    winner = _winner(host, embedded)
    if winner is Winner.EMBEDDED and mode is not Mode.ANY:
        raise RecordDowngrade(
            f"The home of {host.user_and_realm} holds a newer record than this machine: "
            f"its lastChangeUSec is {embedded.last_change_usec}, "
            f"expected at most {host.last_change_usec}."
        )
    if winner is Winner.IDENTICAL and mode is Mode.REQUIRE_NEWER:
        # The name homed answers with, System.Error.ESTALE: callers know it as "nothing to do".
        raise SystemFailure(
            OSError(errno.ESTALE, "stale"),
            f"The home of {host.user_and_realm} holds this very record already",
        )
    # The winner gives what is signed, the host what is its own: binding and status.
    source = embedded if winner is Winner.EMBEDDED else host
    return Reconciled(
        record=source.without(*NOT_EMBEDDED).with_local_sections_of(host),
        winner=winner,
        rewrite_host=winner is Winner.EMBEDDED or mode is not Mode.ANY,
        rewrite_embedded=winner is Winner.HOST,
    )


def _winner(host: UserRecord, embedded: UserRecord) -> Winner:
    # A missing stamp is older than any.
    host_stamp = -1 if host.last_change_usec is None else host.last_change_usec
    embedded_stamp = -1 if embedded.last_change_usec is None else embedded.last_change_usec
    if host_stamp == embedded_stamp and host.same_content(embedded):
        return Winner.IDENTICAL
    return Winner.HOST if host_stamp >= embedded_stamp else Winner.EMBEDDED


def _check_pair(host: UserRecord, embedded: UserRecord) -> None:
    if not host.is_same_user(embedded):
        raise RecordMismatch(
            f"The home holds the record of {embedded.user_and_realm}: "
            f"expected that of {host.user_and_realm}."
        )
    for section in NOT_EMBEDDED:
        if section in embedded.data:
            raise HostileHome(
                f".{section}: must not be in the record inside the home of {host.user_and_realm}."
            )
