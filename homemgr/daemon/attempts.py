"""Attempts to authenticate: rate limit before, counters and the answer's delay after.

Each user has a limit of his own for each home, or whoever guesses could use up the attempts
of those who log in: those are PAM's, which asks as root. Root's are counted in the record, as
systemd-homed counts everybody's, the others' in memory alone: they cannot restart the service.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.callers import origin
from homemgr.daemon.home import now_usec
from homemgr.record import password, ratelimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from homemgr.daemon.home import Home
    from homemgr.record.secret import Secret

#: A wrong password is answered about this long after it was asked about, at the earliest. As
#: libpam lets wait who names a user that pam_unix does not know, so that the two look alike.
#: systemd-homed keeps the home busy meanwhile, for 3 s; here only the answer waits.
FAILURE_DELAY_S = 2.0

#: What says that the home is not unlocked by what was given.
CREDENTIAL_FAILURES = (errors.BadPassword, errors.BadRecoveryKey, *errors.TOKEN_FAILURES)


@asynccontextmanager
async def looking(home: Home) -> AsyncIterator[None]:
    """Note whether the files of the home are there; what fails is nobody's attempt."""
    try:
        yield
    except errors.HomeAbsent:
        home.is_present = False
        raise
    home.is_present = True


@asynccontextmanager
async def attempt(home: Home, secret: Secret) -> AsyncIterator[None]:
    """Count an attempt to authenticate: rate limit before, good and bad counters after.

    Of a home that was found on disk too, in memory: its password is as easy to guess.
    """
    async with counted(home, secret), looking(home):
        yield


@asynccontextmanager
async def counted(home: Home, secret: Secret) -> AsyncIterator[None]:
    """The same for what does not find out, or changes, whether the files are there."""
    if not secret.is_empty:
        _count(home)
    elif home.is_fixated and not home.effective.token_hashes:
        # PAM's first question is empty; the answer needs no worker and is no guess.
        password.check(home.effective, secret, _never)
    started = asyncio.get_running_loop().time()
    try:
        yield
    except CREDENTIAL_FAILURES as failure:
        if not secret.is_empty:
            home.update_status(ratelimit.failed(home.effective, now_usec()))
        if secret.passwords:
            failure.answer_at = started + _delay_s()
        raise
    home.update_status(ratelimit.succeeded(home.effective, now_usec()))


@asynccontextmanager
async def counted_later(home: Home) -> AsyncIterator[Callable[[], None]]:
    """The same for words that come in the block, if any do, and are not ours to see.

    Who has them calls what this gives before they are tried.
    """
    started = asyncio.get_running_loop().time()
    tried = []

    def count() -> None:
        _count(home)
        tried.append(True)

    try:
        yield count
    except CREDENTIAL_FAILURES as failure:
        if tried:
            home.update_status(ratelimit.failed(home.effective, now_usec()))
            failure.answer_at = started + _delay_s()
        raise
    if tried:
        home.update_status(ratelimit.succeeded(home.effective, now_usec()))


def _count(home: Home) -> None:
    """Raise AuthenticationLimitHit if whoever asks has tried too often."""
    uid, now = origin.get(), now_usec()
    if uid == 0:
        home.update_status(ratelimit.count(home.effective, now))
        return
    window = home.others_attempts.get(uid, ratelimit.Window())
    home.others_attempts[uid] = ratelimit.count_in(window, home.effective, now)


def _delay_s() -> float:
    """Half to one and a half times the delay, spread as libpam does it: see pam_fail_delay(3)."""
    chance = secrets.SystemRandom()
    return FAILURE_DELAY_S * (0.5 + sum(chance.random() for _ in range(3)) / 3)


def _never(_password: str, _hashed: str) -> bool:
    return False
