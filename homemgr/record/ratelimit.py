"""The login limit and the counters of a record, kept in this machine's status.

Pure: the effective record and the time in, the changed status members out; merging
and saving them is the caller's. Windows and counting follow homed, which reads and
writes the same members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import AuthenticationLimitHit
from homemgr.record.password import duration

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject


def count(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Count one attempt to authenticate; raises AuthenticationLimitHit when the window is full.

    A refused attempt is not counted, so that waiting out the window always helps.
    """
    # Wall clock, not monotonic: the window has to survive a reboot, or rebooting would reset it.
    begin = effective.rate_limit_begin_usec
    interval = effective.rate_limit_interval_usec
    # A window that begins in the future means that the clock was wrong: then or now.
    if begin is None or begin > now_usec or begin + interval <= now_usec:
        return {"rateLimitBeginUSec": now_usec, "rateLimitCount": 1}
    if effective.rate_limit_count >= effective.rate_limit_burst:
        wait = duration(begin + interval - now_usec)
        raise AuthenticationLimitHit(
            f"Too many attempts to unlock the home of {effective.user_and_realm}: "
            f"try again in {wait}."
        )
    return {"rateLimitBeginUSec": begin, "rateLimitCount": effective.rate_limit_count + 1}


def succeeded(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Note an authentication that worked."""
    counter = effective.good_authentication_counter + 1
    return {"goodAuthenticationCounter": counter, "lastGoodAuthenticationUSec": now_usec}


def failed(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Note an authentication that failed for its credentials."""
    counter = effective.bad_authentication_counter + 1
    return {"badAuthenticationCounter": counter, "lastBadAuthenticationUSec": now_usec}
