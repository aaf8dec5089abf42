"""Homes that have a key: out of memory it is whenever the home is not in use.

A worker takes it out; killed, it may have left it there, and who still has files open keeps
it there. So it is tried again until it is done, and at the start of the service.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.states import Job
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)

#: Waiting times between attempts to close a home; the last one repeats.
_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0)


def still_open(home: Home) -> None:
    """Say that files of an inactive home can be read on by who has them open; end it once it can.

    Nobody else can read anything by then, nor open another file.
    """
    log.warning(
        "Home area %s is deactivated, but some of its files are open elsewhere: they stay readable"
        " there until they are closed.",
        home.name,
    )
    see_to(home)


def see_to(home: Home) -> None:
    """Close the home in the background unless it is in use, whatever a worker has left of it."""
    if home.abilities.has_key and home.settling is None:
        home.settling = asyncio.create_task(_see_to(home))


async def _see_to(home: Home) -> None:
    for number in itertools.count():
        await asyncio.sleep(_DELAYS_S[min(number, len(_DELAYS_S) - 1)])
        if not home.is_known or await settle(home):
            break
    home.settling = None


async def settle(home: Home) -> bool:
    """One attempt: close a home not in use, see whether one in use is locked. False: again."""
    async with home.undisturbed() as is_quiet:
        if not is_quiet:
            return False
        try:
            result = await home.work(Job.SETTLE, Secret())
        except errors.HomeError as error:
            log.warning("Home area %s may still be open: %s", home.name, error)
            return False
        home.note_locked(is_locked=bool(result.get("is_locked")))
        if home.is_mounted and not home.is_locked:
            # A service that was killed while it locked or unlocked has left them held.
            await home.services.freezer.let_go(home.uid)
        return bool(result.get("is_closed"))
