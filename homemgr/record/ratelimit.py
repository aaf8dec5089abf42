"""The login limit and the counters of a record, kept in this machine's status.

Pure updates: a record and the time in, a record out; the caller saves it. Windows
and counting follow homed, which reads the same members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import AuthenticationLimitHit
from homemgr.record.password import duration

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord


def count_attempt(record: UserRecord, machine: Machine, now_usec: int) -> UserRecord:
    """Count one attempt to authenticate; raises AuthenticationLimitHit when the window is full.

    A refused attempt is not counted, so that waiting out the window always helps.
    """
    effective = record.on(machine)
    begin, count = effective.get("rateLimitBeginUSec"), effective.get("rateLimitCount")
    begin = begin if isinstance(begin, int) else None
    count = count if isinstance(count, int) else 0
    interval = effective.rate_limit_interval_usec
    # A window that begins in the future means that the clock was wrong: then or now.
    if begin is None or begin > now_usec or begin + interval <= now_usec:
        return _with(record, machine, rateLimitBeginUSec=now_usec, rateLimitCount=1)
    if count >= effective.rate_limit_burst:
        wait = duration(begin + interval - now_usec)
        raise AuthenticationLimitHit(
            f"Too many attempts to unlock the home of {record.user_and_realm}: try again in {wait}."
        )
    return _with(record, machine, rateLimitBeginUSec=begin, rateLimitCount=count + 1)


def count_good(record: UserRecord, machine: Machine, now_usec: int) -> UserRecord:
    """Note an authentication that worked."""
    return _counted(record, machine, now_usec, "goodAuthenticationCounter", "lastGood")


def count_bad(record: UserRecord, machine: Machine, now_usec: int) -> UserRecord:
    """Note an authentication that failed for its credentials."""
    return _counted(record, machine, now_usec, "badAuthenticationCounter", "lastBad")


def _counted(
    record: UserRecord, machine: Machine, now_usec: int, counter: str, stamp: str
) -> UserRecord:
    before = record.on(machine).get(counter)
    count = before + 1 if isinstance(before, int) else 1
    members: dict[str, Json] = {counter: count, f"{stamp}AuthenticationUSec": now_usec}
    return record.with_status(machine.id, members)


def _with(record: UserRecord, machine: Machine, **members: Json) -> UserRecord:
    return record.with_status(machine.id, members)
