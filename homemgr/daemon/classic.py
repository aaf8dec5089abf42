"""Classic accounts that become home areas where they lie, and back; see `classic_states`.

The switch is the moment in which the account leaves the account files: from then on the user
is one of ours, and whoever logs in waits until the files have changed their owner. Whatever
fails after that is taken back; after a kill the next start of the service finishes it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

from homemgr import errors
from homemgr.daemon.activity import to_the_end
from homemgr.daemon.classic_states import (
    BEGUN,
    CONVERTED,
    MOVING,
    RETURNING,
    SURVEYED,
    ClassicState,
    ClassicStore,
)
from homemgr.daemon.classic_steps import ClassicSteps, Result
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from homemgr.daemon.activity import Activity
    from homemgr.daemon.manager import Manager

log = logging.getLogger(__name__)


class Classic:
    """All conversions of one daemon. Owned by the manager."""

    def __init__(self, manager: Manager) -> None:
        """Know what is on disk once it is recovered."""
        self._manager = manager
        self._store = ClassicStore(manager.services.config.classic_directory)
        self._steps = ClassicSteps(manager, self._store)
        #: Gone when nobody holds, or waits for, them.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._finishing: set[asyncio.Task[None]] = set()

    # -- start and end ---------------------------------------------------------------------

    async def recover(self) -> None:
        """Finish what a kill interrupted; what takes long goes on while the service runs."""
        await asyncio.to_thread(self._store.forget_orphans)
        for state in await asyncio.to_thread(self._store.load):
            if state.phase == MOVING:
                # Known when this returns, so that nobody else gets the name.
                await self._admit_again(state)
                task = asyncio.create_task(self._finish(state))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)
            elif state.phase != CONVERTED or state.is_old:
                await self._finish(state)

    async def stop(self) -> None:
        """Leave what is being finished to the next start."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)

    # -- what can be asked -------------------------------------------------------------------

    async def convert(self, activity: Activity, user: str, *, is_dry_run: bool) -> Result:
        """Turn the account ``user`` into a home area, or only say what would become of it."""
        async with self._alone(user):
            state, interrupted = await self._settled(user)
            if interrupted is not None and interrupted.phase == MOVING and not is_dry_run:
                return _answer(interrupted)
            if state is not None:
                raise errors.HomeExists(
                    f"{user} has been converted already; undo that with --undo, or confirm it"
                    " with --confirm."
                )
            if self._manager.registry.by_name(user) is not None:
                raise errors.UserNameExists(f"{user} has a home area already.")
            await asyncio.to_thread(self._store.prepare)
            # Until the record is written: between both a disk that is full must not stop it.
            with ExitStack() as room:
                return await self._convert(activity, user, room, is_dry_run=is_dry_run)

    async def _convert(
        self, activity: Activity, user: str, room: ExitStack, *, is_dry_run: bool
    ) -> Result:
        try:
            found = await self._steps.survey(user, activity)
            answer = cast("Result", found["answer"])
            if is_dry_run:
                await asyncio.to_thread(self._store.delete, user)
                return {**answer, "dry_run": True}
            room.enter_context(await to_the_end(self._steps.held_room()))
            state, record = await self._steps.begin(user, found)
        except errors.HomeError:
            await asyncio.to_thread(self._store.delete, user)
            raise
        await to_the_end(self._steps.change_over(state, record, activity, room))
        log.info("The classic account %s is a home area now, at %s.", user, state.image)
        return answer

    async def undo(self, activity: Activity, user: str) -> Result:
        """Make the home area a classic account again, with the password of now."""
        async with self._alone(user):
            state, interrupted = await self._settled(user)
            if interrupted is not None and interrupted.phase == RETURNING:
                return _answer(interrupted)
            home = self._manager.registry.by_name(user)
            if state is None or home is None:
                raise errors.FileNotFound(
                    f"No conversion of {user} can be undone: there was none, it was confirmed, or"
                    " it is too long ago."
                )
            if (home.image_path, home.effective.storage) != (state.image, "directory"):
                raise errors.NotSupported(
                    f"Home area {user} lies elsewhere, or in another way, than where it was"
                    f" converted to ({state.image}): make it a directory there again first."
                )
            return await to_the_end(self._steps.bring_back(state, home, activity))

    async def listed(self) -> list[Result]:
        """Every conversion that can be undone, or is under way."""
        states = await asyncio.to_thread(self._store.load)
        return [state.listed() for state in states if not state.is_old]

    async def confirm(self, user: str) -> None:
        """Forget how to undo it."""
        async with self._alone(user):
            state, _ = await self._settled(user)
            if state is None:
                raise errors.FileNotFound(f"No conversion of {user} waits to be confirmed.")
            await asyncio.to_thread(self._store.delete, user)

    # -- after a kill ------------------------------------------------------------------------

    async def _settled(self, user: str) -> tuple[ClassicState | None, ClassicState | None]:
        """The finished conversion of ``user``, if it can be undone; and what was interrupted.

        That has been done to its end, or taken back, when this returns.
        """
        state = await asyncio.to_thread(self._store.find, user)
        if state is None:
            return None, None
        if state.phase == CONVERTED and not state.is_old:
            services = self._manager.services
            if await asyncio.to_thread(services.store.has_record, user):
                return state, None
            # The home area was removed since: who has the name now is somebody else.
            state = replace(state, when=0)
        await to_the_end(self._resume(state))
        return await asyncio.to_thread(self._store.find, user), state

    async def _finish(self, state: ClassicState) -> None:
        """Like `_settled` in the background; what fails is tried again at the next occasion."""
        try:
            async with self._alone(state.user):
                await self._resume(state)
        except errors.HomeError as error:
            log.error("The conversion of %s is not finished: %s", state.user, error)

    async def _resume(self, state: ClassicState) -> None:
        home = self._manager.registry.by_name(state.user)
        if state.phase == CONVERTED:
            await asyncio.to_thread(self._store.delete, state.user)
        elif state.phase in (SURVEYED, BEGUN):
            await self._steps.put_back(state)
        elif state.phase == RETURNING:
            if home is None:
                await self._steps.give_back(state, None, None)
            else:
                await self._steps.bring_back(state, home, None)
        else:
            if home is None:
                home = await self._manager.admit(UserRecord(state.record))
            await self._steps.move(state, home, None, ExitStack())

    async def _admit_again(self, state: ClassicState) -> None:
        if self._manager.registry.by_name(state.user) is None:
            try:
                await self._manager.admit(UserRecord(state.record))
            except errors.HomeError as error:
                log.error("The conversion of %s cannot go on: %s", state.user, error)

    # -- help --------------------------------------------------------------------------------

    def _alone(self, user: str) -> asyncio.Lock:
        """To be held: one conversion of a user at a time, others wait for its end."""
        return self._locks.setdefault(user, asyncio.Lock())


def _answer(state: ClassicState) -> Result:
    """What is still known of a conversion that was finished, or undone, after an interruption."""
    return {
        "user": state.user,
        "uid": state.uid,
        "home": state.home,
        "imagePath": state.image,
        "memberOf": state.record.get("memberOf", []),
        "files": state.files,
        "lost_groups": [],
        "report": {"counts": {}, "notes": []},
    }
