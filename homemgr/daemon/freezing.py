"""Programs of a user are held still while his home is locked.

Whatever they wanted to open would be an error to them, and not all would survive that. Where
systemd does not run, or nobody is logged in, there is nothing to hold. As systemd-homed does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = logging.getLogger(__name__)

#: systemd answers when all programs stand still, which one that waits for a disk does not. Less
#: than logind waits with sleep, so that homes are locked by then all the same.
_PATIENCE_S = 1.5


class Manager(Protocol):
    """What is needed of systemd, see `homemgr.wire.systemd`."""

    async def freeze(self, unit: str) -> None:
        """Have no program in a unit run any more; raises BusError."""

    async def thaw(self, unit: str) -> None:
        """Let them go on; raises BusError."""


class Freezer:
    """Holds and lets go; a failure of either keeps nobody from locking and unlocking."""

    def __init__(self, manager: Manager | None) -> None:
        """Ask ``manager``; do nothing without one."""
        self._manager = manager

    async def hold(self, uid: int) -> None:
        """Hold the programs of a user still."""
        if self._manager is not None:
            await _tried(self._manager.freeze(_slice(uid)), "cannot be held still")

    async def let_go(self, uid: int) -> None:
        """Let them go on."""
        if self._manager is not None:
            await _tried(self._manager.thaw(_slice(uid)), "cannot be let go on")


def _slice(uid: int) -> str:
    return f"user-{uid}.slice"


async def _tried(call: Awaitable[None], what: str) -> None:
    try:
        await asyncio.wait_for(call, _PATIENCE_S)
    except BusError as error:
        log.debug("The programs of a user %s: %s", what, error)
    except TimeoutError:
        log.warning("The programs of a user %s within %g s.", what, _PATIENCE_S)
