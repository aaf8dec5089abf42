"""Sleep: the machine waits until all homes that can be locked are locked, within a bound.

systemd's own sleep calls LockAllHomes as well, but only where it is what puts the machine to
sleep, and when everything else is about to be stopped already. Without logind nobody says
that the machine is about to sleep, and there is nothing to wait for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from homemgr.files import Fd

log = logging.getLogger(__name__)

_WHO = "homemgrd"
_WHY = "Home areas are locked before the machine sleeps"
#: How much of the time that we get is used; what is late then goes on during sleep and after.
_SHARE = 0.8
#: What logind says after sleep.
_AWAKE: Final = False


class Sleep(Protocol):
    """What is needed of logind, see `homemgr.wire.logind`."""

    async def follow(
        self, sleeping: Callable[[bool], object], appeared: Callable[[], object]
    ) -> None:
        """Be told before and after sleep, and of another logind."""

    async def delay_sleep(self, who: str, why: str) -> Fd:
        """Have sleep wait for a descriptor to be closed; raises BusError."""

    async def longest_delay_s(self) -> float:
        """How long it waits at most."""


class SleepGuard:
    """Holds sleep off, lets it go on as soon as ``lock_all`` has ended or taken too long."""

    def __init__(self, logind: Sleep, lock_all: Callable[[], Awaitable[None]]) -> None:
        """Do nothing before `start`."""
        self._logind = logind
        self._lock_all = lock_all
        #: While it is open, the machine does not go to sleep.
        self._lock: Fd | None = None
        self._bound_s = 0.0
        #: What was told and is still to be heeded, in order: whether sleep is to come.
        self._news: asyncio.Queue[bool] = asyncio.Queue()
        self._following: asyncio.Task[None] | None = None
        #: Locking that took too long, and goes on.
        self._late: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Follow logind from now on; raises BusError if the bus does not let us."""
        await self._logind.follow(self._news.put_nowait, lambda: self._news.put_nowait(_AWAKE))
        # Now is as after sleep: heeding that is what holds the first sleep off.
        self._news.put_nowait(_AWAKE)
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Hold nothing any more."""
        for task in (self._following, self._late):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        self._release()

    async def _follow(self) -> None:
        while True:
            is_about_to_sleep = await self._news.get()
            await (self._prepare() if is_about_to_sleep else self._take())

    async def _take(self) -> None:
        """Hold off the next sleep, also that of a logind that was not there before."""
        try:
            bound_s = _SHARE * await self._logind.longest_delay_s()
            lock = await self._logind.delay_sleep(_WHO, _WHY)
        except BusError as reason:
            # While it is about to sleep there is none to be had: another comes after that.
            log.debug("The machine does not wait for us before it sleeps: %s", reason)
            return
        self._release()
        self._lock, self._bound_s = lock, bound_s

    async def _prepare(self) -> None:
        if self._lock is None:
            return
        locking = asyncio.ensure_future(self._lock_all())
        _, late = await asyncio.wait((locking,), timeout=self._bound_s)
        if late:
            # Not called off: half of it would be worth less than all of it after waking up.
            log.warning("Locking home areas takes longer than the machine waits before it sleeps.")
            self._late = locking
        elif (bug := locking.exception()) is not None:
            log.error("Bug in the locking of home areas: %s", type(bug).__name__)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
