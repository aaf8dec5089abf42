"""Locking: to take the key of a home in use out of memory, as before the machine sleeps.

Only storages that have a key of their own can do that; what the files of others lie on may
be encrypted, but that is not ours. Error names are those of systemd-homed 262.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.reader import stop_reading
from homemgr.daemon.states import Job, Operation
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)


async def lock(home: Home, *, queued: bool = False) -> None:
    """Lock; raises NotSupported, or what the state says: HomeNotActive, HomeLocked, HomeBusy.

    If ``queued``, after what runs on the home has ended.
    """
    async with home.exclusively(Operation.LOCK, queued=queued):
        if not home.abilities.can_lock:
            raise errors.NotSupported(
                f"Cannot lock home area {home.name}: {_why_not(home)}. Deactivate it instead."
            )
        await stop_reading(home)
        freezer = home.services.freezer
        await freezer.hold(home.uid)
        try:
            result = await home.work(Job.LOCK, Secret())
        except BaseException:
            # Also when this is ended with the service: nothing else would let them go on.
            await freezer.let_go(home.uid)
            raise
        home.note_locked(is_locked=True)
    log.info("Home area %s is locked.", home.name)
    if users := result.get("users"):
        log.warning("In home area %s what is open stays readable: to %s.", home.name, users)


async def lock_all(homes: Iterable[Home]) -> None:
    """Lock what can be locked, side by side, and log which homes stay readable.

    A success all the same: who is about to sleep must not be kept from it by what cannot
    be otherwise. Homes whose clients need them meanwhile were never to be locked. One that goes
    on to get smaller after a logout has its key until it is closed, which is at once then.
    """
    wanted = [h for h in homes if _is_wanted(h)]
    await asyncio.gather(*map(_lock_if_possible, wanted))


def _is_wanted(home: Home) -> bool:
    if home.resting.is_active:
        return home.references.may_be_locked
    return home.is_yielding and home.abilities.can_lock


async def _lock_if_possible(home: Home) -> None:
    if not home.abilities.can_lock:
        log.info("Home area %s stays readable: %s.", home.name, _why_not(home))
        return
    try:
        await lock(home, queued=True)
    except (errors.HomeNotActive, errors.HomeLocked, errors.NoSuchHome):
        # Ended or locked while this waited for its turn.
        return
    except errors.HomeError as error:
        log.warning("Home area %s stays readable: %s", home.name, error)


def _why_not(home: Home) -> str:
    return f"storage {home.effective.storage} has no key that could be taken out of memory"
