"""Which transfers there are: the states in effect, each of them on disk before, and who runs.

A run is exclusive for its user, so that nobody sends, receives or forgets a home at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.transfer_states import COMMITTED

if TYPE_CHECKING:
    from homemgr.daemon.transfer_states import Direction, TransferState, TransferStore


class TransferRegister:
    """All transfers that were begun and not forgotten."""

    def __init__(self, store: TransferStore) -> None:
        """Know what is in ``store`` after `load`."""
        self._store = store
        self._states: dict[tuple[Direction, str], TransferState] = {}
        self._running: set[str] = set()

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
        """Have a state on disk and in effect when this returns."""
        await asyncio.to_thread(self._store.save, direction, state)
        self._states[direction, state.user] = state

    async def drop(self, direction: Direction, user: str) -> None:
        """Forget a transfer."""
        await asyncio.to_thread(self._store.delete, direction, user)
        self._states.pop((direction, user), None)

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
