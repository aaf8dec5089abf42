"""Locking: to take the key of a home in use out of memory, as before the machine sleeps.

No storage of this service has a key of its own, so nothing can be locked; what the files lie
on may be encrypted, but that is not ours. Error names are those of systemd-homed 262.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from homemgr import errors
from homemgr.daemon.states import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)


async def lock(home: Home) -> NoReturn:
    """Refuse with NotSupported, or with what the state says: HomeNotActive, HomeBusy."""
    async with home.exclusively(Operation.LOCK):
        raise errors.NotSupported(
            f"Cannot lock home area {home.name}: {_why_not(home)}. Deactivate it instead."
        )


async def unlock(home: Home) -> NoReturn:
    """Refuse with HomeNotLocked, which no home ever is."""
    async with home.exclusively(Operation.UNLOCK):
        raise errors.NotSupported(f"Cannot unlock home area {home.name}: {_why_not(home)}.")


def lock_all(homes: Iterable[Home]) -> None:
    """Lock what can be locked, that is nothing, and log which homes stay readable.

    A success all the same: who is about to sleep must not be kept from it by what cannot
    be otherwise. Homes whose clients need them meanwhile were never to be locked.
    """
    for home in homes:
        if home.resting.is_active and home.references.may_be_locked:
            log.info("Home area %s stays readable: %s.", home.name, _why_not(home))


def _why_not(home: Home) -> str:
    return f"storage {home.effective.storage} has no key that could be taken out of memory"
