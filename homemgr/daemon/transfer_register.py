"""Which transfers there are: the states in effect, each of them on disk before, and who runs.

A run is exclusive for its user, so that nobody sends, receives or forgets a home at once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.transfer_states import COMMITTED, PREPARED

if TYPE_CHECKING:
    from homemgr.daemon.transfer_states import Direction, TransferState, TransferStore

log = logging.getLogger(__name__)


class TransferRegister:
    """All transfers that were begun and not forgotten."""

    def __init__(self, store: TransferStore) -> None:
        """Know what is in ``store`` after `load`."""
        self._store = store
        self._states: dict[tuple[Direction, str], TransferState] = {}
        self._running: set[str] = set()
        #: One change at a time: the last one that is made is the one that stays.
        self._changing = asyncio.Lock()
        self._noting: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Know what is on disk."""
        self._states = await asyncio.to_thread(self._store.load)

    def all(self, direction: Direction) -> list[TransferState]:
        """The states of all transfers that go this way."""
        return [state for (way, _), state in self._states.items() if way == direction]

    def find(self, direction: Direction, user: str) -> TransferState | None:
        """The state of a transfer, if there is one."""
        return self._states.get((direction, user))

    def state(self, direction: Direction, user: str) -> TransferState:
        """The state of a transfer that runs; raises HomeError if it was forgotten meanwhile."""
        state = self.find(direction, user)
        if state is None:
            raise errors.TransferInterrupted(f"The transfer of {user} was forgotten.")
        return state

    async def save(self, direction: Direction, state: TransferState) -> None:
        """Have a state on disk and in effect when this returns; if it raises, the one before."""
        async with self._changing:
            try:
                await asyncio.to_thread(self._store.save, direction, state)
            except errors.HomeError:
                # It may be on disk all the same, and would count from the next start on: the home
                # that somebody used meanwhile would be one that has left, or was given back.
                with suppress(errors.HomeError):
                    await asyncio.to_thread(self._put_back, direction, state.user)
                raise
            self._states[direction, state.user] = state

    def _put_back(self, direction: Direction, user: str) -> None:
        before = self._states.get((direction, user))
        if before is None:
            self._store.delete(direction, user)
        else:
            self._store.save(direction, before)

    async def drop(self, direction: Direction, user: str) -> None:
        """Forget a transfer."""
        async with self._changing:
            await asyncio.to_thread(self._store.delete, direction, user)
            self._states.pop((direction, user), None)

    async def note_bytes(self, direction: Direction, user: str, count: int) -> None:
        """How much has travelled, for the list alone."""
        async with self._changing:
            state = self.find(direction, user)
            if state is not None and state.bytes != count:
                state = self._states[direction, user] = replace(state, bytes=count)
                await self._keep(direction, state)

    def note_use(self, user: str) -> None:
        """Somebody uses a home that arrived: in effect at once, and on disk soon."""
        state = self.find("in", user)
        if state is None or state.is_used or state.phase not in (PREPARED, COMMITTED):
            return
        self._states["in", user] = replace(state, is_used=True)
        task = asyncio.get_running_loop().create_task(self._keep_use(user))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _keep_use(self, user: str) -> None:
        async with self._changing:
            state = self.find("in", user)
            if state is not None:
                # As it is by now: while this waited for its turn it may have changed.
                await self._keep("in", state)

    async def _keep(self, direction: Direction, state: TransferState) -> None:
        """Have on disk what is in effect already, if that is possible."""
        try:
            await asyncio.to_thread(self._store.save, direction, state)
        except errors.HomeError as error:
            log.warning("%s", error)

    async def settle(self) -> None:
        """Return when all that was noted is on disk."""
        await asyncio.gather(*self._noting)

    def begin(self, user: str) -> None:
        """Let nobody else send or receive this user; raises TransferBusy."""
        if user in self._running:
            raise errors.TransferBusy(f"A transfer of home area {user} is under way.")
        self._running.add(user)

    def end(self, user: str) -> None:
        """The run is over."""
        self._running.discard(user)

    def hides(self, image_path: str) -> bool:
        """Whether an image on disk is none to be found: it arrives, or was given back."""
        return any(
            direction == "in" and state.phase != COMMITTED and state.image_path == image_path
            for (direction, _), state in self._states.items()
        )

    def aside_names(self) -> set[str]:
        """The names of all trees that transfers keep beside homes."""
        return {state.aside_name for state in self._states.values()}

    def listed(self) -> list[dict[str, object]]:
        """All transfers, as a client is shown them."""
        order = sorted(self._states.items(), key=lambda item: (item[0][1], item[0][0]))
        return [state.listed(direction) for (direction, _), state in order]

    def direction_of(self, user: str) -> Direction:
        """Which way a user's transfer goes, the outgoing first; raises NoSuchHome."""
        directions: tuple[Direction, ...] = ("out", "in")
        for direction in directions:
            if self.find(direction, user) is not None:
                return direction
        raise errors.NoSuchHome(f"No transfer of {user} is known.")
