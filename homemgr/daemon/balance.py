"""Sizes that follow what there is: homes in use grow to their size and share out free space.

All of it goes on beside logins and logouts, which it neither delays nor fails. Rules and
times are those of systemd-homed 262 (see `shares`), but for two: only homes take part whose
file system gets smaller too while it is used, as the others would have the whole disk in the
end; and one that is busy stays as it is, and keeps nobody else from a share.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

from homemgr import errors
from homemgr.daemon import fitting, shares
from homemgr.record.sizing import sizing_of
from homemgr.wire.outline import outline

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from homemgr.daemon.config import Config
    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry
    from homemgr.record.sizing import Standing

log = logging.getLogger(__name__)

#: How long after a login its home is seen to, and again if it was in use for something else (s).
_AFTER_LOGIN_S: Final = (1.0, 5.0, 30.0)
#: When homes that are in use at the start of the service are seen to (s).
_FIRST_S: Final = 120.0
#: How long after a round logins alone are no reason for the next (s).
_REST_S: Final = 10.0
#: How long a round waits for one home before it goes on with the others (s).
_PATIENCE_S: Final = 60.0
#: And for one that grows after a login (s): nearly always there is nothing to grow, and it is over
#: before anybody could say that the home is busy.
_GROWTH_S: Final = 5.0


class _Goal(NamedTuple):
    """The size that a home shall have, and has; bytes."""

    home: Home
    now: int
    size: int
    #: What of the new one is not in use.
    room: int


class Balance:
    """Sees to the sizes of one daemon's homes from `start` to `stop`."""

    def __init__(self, registry: Registry, config: Config) -> None:
        """Do nothing yet."""
        self._registry = registry
        self._config = config
        #: Set when there is a reason for a round, and when somebody waits for it.
        self._wanted, self._asked = asyncio.Event(), asyncio.Event()
        #: Who asked for a round that has not begun.
        self._callers: list[asyncio.Future[bool]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: Held for a home while it is seen to after a login.
        self._growing: WeakKeyDictionary[Home, asyncio.Lock] = WeakKeyDictionary()
        #: When a round ended last, by the clock of the loop.
        self._last_s = -math.inf

    def start(self) -> None:
        """Share out from now on."""
        self._begin(self._follow())

    async def stop(self) -> None:
        """Begin nothing more, and end what nobody waits for."""
        for home in self._registry:
            home.call_off()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _answer(self._callers, took_part=False)

    def activated(self, home: Home) -> None:
        """See to a home that has come into use, once its login is over."""
        sizing = sizing_of(home.effective)
        if sizing.grows_to is not None or sizing.weight:
            self._begin(self._tend(home))

    async def now(self) -> None:
        """Share out at once; returns when it is done. Raises RebalanceNotNeeded."""
        if not self._takers():
            raise errors.RebalanceNotNeeded
        caller: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._callers.append(caller)
        self._wanted.set()
        self._asked.set()
        if not await caller:
            raise errors.RebalanceNotNeeded

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _tend(self, home: Home) -> None:
        for pause_s in _AFTER_LOGIN_S:
            await asyncio.sleep(pause_s)
            async with self._growth_of(home):
                is_seen_to = await fitting.grow(home)
            if is_seen_to:
                break
        if self._takes_part(home):
            self._wanted.set()

    def _growth_of(self, home: Home) -> asyncio.Lock:
        return self._growing.setdefault(home, asyncio.Lock())

    def _takers(self) -> list[Home]:
        return [home for home in self._registry if self._takes_part(home)]

    def _takes_part(self, home: Home) -> bool:
        """Whether it shares the disk with others, as far as its record and state say."""
        # Elsewhere, as on a stick, nobody else is short of room because of it.
        is_here = bool(home.image_path) and self._config.is_usual(home.image_path)
        return is_here and fitting.is_in_use(home) and sizing_of(home.effective).weight > 0

    # -- rounds ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        """One round after the other, as long as there is anybody to share out to."""
        pause_s = _FIRST_S
        while True:
            await self._until_due(pause_s)
            callers, self._callers = self._callers, []
            found: float | None = None
            try:
                found = await self._round()
            except Exception as error:  # noqa: BLE001 -- a bug: nobody else would begin the next one
                log.error("Bug in sharing out: %s", outline(error))
            finally:
                self._last_s = asyncio.get_running_loop().time()
                _answer(callers, took_part=found is not None)
            pause_s = _FIRST_S if found is None else found

    async def _until_due(self, pause_s: float) -> None:
        """Return when somebody asks for a round, or for another reason or after ``pause_s``."""
        await _set_within(self._wanted, pause_s if self._takers() else None)
        # One for all who log in at the same time: each asks every home how it stands.
        rest_s = self._last_s + _REST_S - asyncio.get_running_loop().time()
        await _set_within(self._asked, max(0.0, rest_s))
        self._wanted.clear()
        self._asked.clear()

    async def _round(self) -> float | None:
        """Share out once; gives the seconds to the next time, None if no home takes part."""
        # What some give back has to be there before others grow into it.
        goals = await self._goals()
        if shrinking := [goal for goal in goals if goal.size < goal.now]:
            await self._fit(shrinking)
            goals = await self._goals()
        await self._fit(goal for goal in goals if goal.size > goal.now)
        if not goals:
            return None
        return shares.pause_s(min(goal.room for goal in goals))

    async def _goals(self) -> list[_Goal]:
        """The sizes for homes that can be asked now; those they have if others are no better."""
        homes = {home.name: home for home in self._takers()}
        seen: dict[str, Standing] = {}

        async def look(home: Home) -> None:
            # That it is seen to by ourselves does not make it busy.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GROWTH_S), self._growth_of(home):
                    pass
            standing = await fitting.standing(home)
            if standing is not None and standing.shrinks:
                seen[home.name] = standing

        await self._side_by_side(look(home) for home in homes.values())
        goals: list[_Goal] = []
        for disk in {standing.disk for standing in seen.values()}:
            on_it = {homes[name]: s for name, s in seen.items() if s.disk == disk}
            goals += _shared_out(on_it)
        return goals

    async def _fit(self, goals: Iterable[_Goal]) -> None:
        await self._side_by_side(fitting.resize(goal.home, goal.size) for goal in goals)

    async def _side_by_side(self, steps: Iterable[Coroutine[None, None, None]]) -> None:
        """Do all of them; those that take their time go on, but are not waited for."""
        tasks = [self._begin(step) for step in steps]
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=_PATIENCE_S)
            for task in done:
                task.result()


def _answer(callers: Iterable[asyncio.Future[bool]], *, took_part: bool) -> None:
    """Tell those who still wait whether any home took part."""
    for caller in callers:
        if not caller.done():
            caller.set_result(took_part)


async def _set_within(event: asyncio.Event, within_s: float | None) -> None:
    """Return when it is set, or after that time if there is one."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()


def _shared_out(standings: dict[Home, Standing]) -> list[_Goal]:
    """The sizes for homes of one disk."""
    claims = {
        home: shares.Claim(
            home.name, sizing_of(home.effective).weight, s.size, s.used, s.least, s.held
        )
        for home, s in standings.items()
    }
    free = min(standing.free for standing in standings.values())
    sizes = shares.share_out(free, list(claims.values()))
    if not shares.are_worthwhile(sizes, list(claims.values())):
        sizes = {claim.name: claim.size for claim in claims.values()}
    return [
        _Goal(home, claim.size, sizes[claim.name], sizes[claim.name] - claim.used)
        for home, claim in claims.items()
    ]
