"""The login limit and the counters of a record, kept in this machine's status.

Pure: the effective record and the time in, the changed status members out; merging
and saving them is the caller's. Windows and counting follow homed, which reads and
writes the same members. Windows of others than root, whom systemd-homed counts with
everybody, are the caller's to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import AuthenticationLimitHit
from homemgr.record.password import duration

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject


class Window(NamedTuple):
    """When counting began, and how many attempts there were since; None: there were none."""

    begin_usec: int | None = None
    attempts: int = 0


def count(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Count one attempt to authenticate; raises AuthenticationLimitHit when the window is full."""
    window = Window(effective.rate_limit_begin_usec, effective.rate_limit_count)
    begin, attempts = count_in(window, effective, now_usec)
    return {"rateLimitBeginUSec": begin, "rateLimitCount": attempts}


def count_in(window: Window, effective: EffectiveRecord, now_usec: int) -> Window:
    """``window`` with one attempt more; raises AuthenticationLimitHit when it is full.

    A refused attempt is not counted, so that waiting out the window always helps.
    """
    # Wall clock, not monotonic: the window has to survive a reboot, or rebooting would reset it.
    begin, attempts = window.begin_usec, window.attempts
    interval = effective.rate_limit_interval_usec
    # A window that begins in the future means that the clock was wrong: then or now.
    if begin is None or begin > now_usec or begin + interval <= now_usec:
        return Window(now_usec, 1)
    if attempts >= effective.rate_limit_burst:
        wait = duration(begin + interval - now_usec)
        raise AuthenticationLimitHit(
            f"Too many attempts to unlock the home of {effective.user_and_realm}: "
            f"try again in {wait}."
        )
    return Window(begin, attempts + 1)


def succeeded(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Note an authentication that worked."""
    counter = effective.good_authentication_counter + 1
    return {"goodAuthenticationCounter": counter, "lastGoodAuthenticationUSec": now_usec}


def failed(effective: EffectiveRecord, now_usec: int) -> JsonObject:
    """Note an authentication that failed for its credentials."""
    counter = effective.bad_authentication_counter + 1
    return {"badAuthenticationCounter": counter, "lastBadAuthenticationUSec": now_usec}
