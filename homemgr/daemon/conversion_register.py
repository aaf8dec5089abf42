"""Which conversions there are: the states in effect, each of them on disk before, and whose turn.

Who decides by the phase of a user's conversion, and changes it, has the turn meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.conversion_states import KEPT

if TYPE_CHECKING:
    from homemgr.daemon.conversion_states import Conversion, ConversionStore
    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)


class ConversionRegister:
    """All conversions that were begun and not forgotten."""

    def __init__(self, store: ConversionStore) -> None:
        """Know what is in ``store`` after `load`."""
        self._store = store
        self._states: dict[str, Conversion] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._noting: set[asyncio.Task[None]] = set()
        #: Whose use could not be noted on disk yet.
        self._unsaved: set[str] = set()

    async def load(self) -> list[Conversion]:
        """Know what is on disk; gives it."""
        self._states = await asyncio.to_thread(self._store.load)
        return list(self._states.values())

    def turn(self, user: str) -> asyncio.Lock:
        """To be held by who goes by the phase of a user's conversion."""
        return self._turns[user]

    def find(self, user: str) -> Conversion | None:
        """The state of a conversion, if there is one."""
        return self._states.get(user)

    def state(self, user: str) -> Conversion:
        """The state of a conversion; raises NoSuchHome."""
        state = self.find(user)
        if state is None:
            raise errors.NoSuchHome(f"No conversion of home area {user} is known.")
        return state

    def phase(self, user: str) -> str:
        """How far it is; empty if nothing is known of any."""
        state = self.find(user)
        return "" if state is None else state.phase

    def listed(self) -> list[dict[str, object]]:
        """All of them, as a client is shown them."""
        return [state.listed() for _, state in sorted(self._states.items())]

    def rooms(self) -> set[str]:
        """Where homes are made and kept."""
        return {room for state in self._states.values() for room in state.rooms}

    async def save(self, state: Conversion) -> Conversion:
        """Have a state on disk and in effect when this returns."""
        await asyncio.to_thread(self._store.save, state)
        self._states[state.user] = state
        return state

    async def forget(self, user: str) -> None:
        """Know nothing of a conversion any more."""
        await asyncio.to_thread(self._store.delete, user)
        self._states.pop(user, None)

    # -- whether a new home was used -----------------------------------------------------------

    async def note_writing(self, user: str) -> None:
        """Remember that what is in a new home is about to change."""
        async with self.turn(user):
            state = self.find(user)
            if state is not None and state.phase == KEPT and not state.is_used:
                await self.save(state.at(KEPT, is_used=True))

    def note_use(self, home: Home) -> None:
        """Remember that somebody has used a new home: going back is not for nothing any more."""
        state = self.find(home.name)
        if state is None or state.phase != KEPT:
            return
        is_new = home.is_mounted and not state.is_used
        # A disk that was full may have room by the time of the logout.
        if not is_new and home.name not in self._unsaved:
            return
        self._unsaved.discard(home.name)
        state = self._states[home.name] = state.at(KEPT, is_used=True)
        task = asyncio.get_running_loop().create_task(self._save_use(state))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _save_use(self, state: Conversion) -> None:
        try:
            async with self.turn(state.user):
                if self.find(state.user) is not state:
                    return
                await asyncio.to_thread(self._store.save, state)
        except errors.HomeError as error:
            self._unsaved.add(state.user)
            log.warning("%s", error)
