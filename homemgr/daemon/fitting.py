"""Jobs on a home in use that nobody asked for and nobody waits for: how it stands, another size.

Whoever wants to have the home while one runs ends it, and it fails without a word: next time.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.daemon.states import Job, Operation, Resting
from homemgr.record.secret import Secret
from homemgr.record.sizing import Standing, sizing_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)

#: What is said of a home whose user was quicker than this: no reason to tell anybody.
_NOT_IN_USE = (errors.HomeNotActive, errors.HomeLocked, errors.HomeAbsent, errors.NoSuchHome)


async def standing(home: Home) -> Standing | None:
    """How the home stands now; None if it is not for us to say, or not now."""
    try:
        async with _meanwhile(home) as called_off:
            told = await home.work(Job.WEIGH, Secret(), cancelled=called_off)
    except errors.HomeError as error:
        log.debug("Home area %s is not weighed: %s", home.name, error)
        return None
    return Standing(**cast("dict[str, int]", told))  # type: ignore[arg-type]


async def resize(home: Home, size: int) -> None:
    """Give the home another size, if that can be done now. Never fails, the log says why not."""
    await _fit(home, size, only_grows=False)


async def grow(home: Home) -> bool:
    """Have a home that is smaller than its record says grow to that, or as far as there is room.

    False if others want to have the home just now. Never fails.
    """
    goal = sizing_of(home.effective).grows_to
    return goal is None or await _fit(home, goal, only_grows=True)


async def _fit(home: Home, size: int, *, only_grows: bool) -> bool:
    try:
        async with _meanwhile(home) as called_off:
            if home.services.runner.is_busy:
                raise errors.HomeBusy
            told = await home.work(
                Job.FIT, Secret(), cancelled=called_off, size=size, only_grows=only_grows
            )
    except (errors.Cancelled, errors.HomeBusy, errors.TransferBusy):
        log.debug("Home area %s is wanted, and gets another size later.", home.name)
        return False
    except (errors.NotSupported, *_NOT_IN_USE) as error:
        log.debug("Home area %s keeps its size: %s", home.name, error)
    except errors.HomeError as error:
        log.warning("Home area %s keeps its size: %s", home.name, error)
    else:
        if told.get("has_changed"):
            log.info("Home area %s has %s bytes now.", home.name, told.get("size"))
        else:
            log.debug("Home area %s keeps its size: it can have no other.", home.name)
    return True


def is_in_use(home: Home) -> bool:
    """Whether somebody uses it who will see that it has another size."""
    is_ours = home.is_fixated and home.lease is None and home.reader is None
    return is_ours and home.resting is Resting.ACTIVE


@asynccontextmanager
async def _meanwhile(home: Home) -> AsyncIterator[asyncio.Event]:
    """Hold a home in use as long as nobody else wants it: then the event is set."""
    if home.is_held:
        raise errors.HomeBusy
    called_off = asyncio.Event()
    async with home.exclusively(Operation.RESIZE, background=True, called_off=called_off):
        if not is_in_use(home):
            raise errors.HomeNotActive
        yield called_off
