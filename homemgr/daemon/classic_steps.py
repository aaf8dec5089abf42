"""The steps from a classic account to a home area and back: each may be repeated after a kill.

A phase is on disk before the step it allows, see `classic_states`. Workers do what is done to
account files and to files of the home; here is what has to come before what.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.daemon import changes, snapshots
from homemgr.daemon.classic_states import (
    BEGUN,
    CONVERTED,
    MOVING,
    RETURNING,
    SURVEYED,
    ClassicState,
)
from homemgr.daemon.held_room import held_room
from homemgr.daemon.home import now_usec
from homemgr.daemon.states import Operation
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from contextlib import ExitStack

    from homemgr.daemon.activity import Activity
    from homemgr.daemon.classic_states import ClassicStore
    from homemgr.daemon.home import Home
    from homemgr.daemon.jobs import OnQuestion
    from homemgr.daemon.manager import Manager
    from homemgr.job import Message
    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)

Result = dict[str, object]


class ClassicSteps:
    """What is done for all conversions of one daemon; to a user one thing at a time."""

    def __init__(self, manager: Manager, store: ClassicStore) -> None:
        """Note in ``store`` what is about to happen."""
        self._manager = manager
        self._store = store

    async def survey(self, user: str, activity: Activity) -> Result:
        """What would become of an account; nothing is changed."""
        return await self._run("classic-survey", {"user": user}, activity)

    async def held_room(self) -> ExitStack:
        """Room for record and state of the home area, see `held_room`; raises NoDiskSpace."""
        records = self._manager.services.config.record_directory
        return await asyncio.to_thread(held_room, records, self._store.directory)

    # -- to a home area ------------------------------------------------------------------------

    async def begin(self, user: str, found: Result) -> tuple[ClassicState, UserRecord]:
        """Note what is about to happen; gives the signed record."""
        record = UserRecord(cast("JsonObject", found["record"])).replaced(lastChangeUSec=now_usec())
        record = await changes.admit_new(self._manager.services, record, None)
        told = cast("Result", found["state"])
        answer = cast("Result", found["answer"])
        state = ClassicState(
            user,
            when=now_usec(),
            record=record.data,
            files=cast("int", answer["files"]),
            **told,  # type: ignore[arg-type]
        )
        await self._save(state)
        return state, record

    async def change_over(
        self, state: ClassicState, record: UserRecord, activity: Activity, room: ExitStack
    ) -> None:
        """From the account to the home area, or all the way back; ``room`` is held until then."""
        home = await self._switch(state, record, room)
        await self.move(state.at(MOVING), home, activity, room)

    async def _switch(self, state: ClassicState, record: UserRecord, room: ExitStack) -> Home:
        """Take the account out of the files and know the user instead, or leave all as it was."""

        async def begin(_question: str, _about: Message) -> Message:
            # Nobody else can change the account from here on until it is out.
            nonlocal state
            state = state.at(BEGUN)
            await self._save(state)
            return {}

        try:
            result = await self._run("classic-take-out", self._account(state), on_question=begin)
            if "refusal" not in result:
                await self._save(state.at(MOVING))
                return await self._manager.admit(record)
        except errors.HomeError:
            room.close()
            await self.put_back(state)
            raise
        # What the files say by now is what somebody else wants.
        await asyncio.to_thread(self._store.delete, state.user)
        raise errors.HomeBusy(str(result["refusal"]))

    async def move(
        self, state: ClassicState, home: Home, activity: Activity | None, room: ExitStack
    ) -> None:
        """Have the files change their owner, then store the record; or take all of it back."""
        services = self._manager.services
        async with home.undisturbed() as is_quiet:
            if not is_quiet:
                raise errors.HomeBusy(f"Home area {home.name} is in use just now.")
            try:
                with room:
                    result = await self._run("classic-take", self._home(state), activity)
                home.is_present = True
                binding = cast("JsonObject", result["binding"])
                bound = home.record.with_binding(services.machine.id, binding)
                await home.store_record(bound)
                await asyncio.to_thread(services.store.make_blob_directory, home.name)
                await self._save(state.at(CONVERTED))
            except errors.HomeError as error:
                log.warning("The conversion of %s is taken back: %s", home.name, error)
                state = state.at(RETURNING)
                await self._save(state)
                await self.give_back(state, home, None)
                raise
        services.changed(home)

    # -- and back ------------------------------------------------------------------------------

    async def bring_back(
        self, state: ClassicState, home: Home, activity: Activity | None
    ) -> Result:
        """Undo it as of now, or go on with that; what did not begin is not tried again later."""
        is_resumed = state.phase == RETURNING
        try:
            async with home.exclusively(Operation.REMOVE, queued=is_resumed):
                if not is_resumed:
                    await _require_no_snapshots(home)
                if home.is_fixated:
                    state = replace(state, record=home.record.for_host().data)
                await self._save(state.at(RETURNING))
                is_area = await asyncio.to_thread(self._is_home_area, state)
                returning = state.at(RETURNING)
                return await self.give_back(returning, home, activity, is_home_area=is_area)
        except errors.HomeError:
            if await asyncio.to_thread(self._is_home_area, state):
                # Its user goes on with it: days later this would be a surprise.
                when = now_usec() if is_resumed else state.when
                await self._save(replace(state, phase=CONVERTED, when=when))
            raise

    def _is_home_area(self, state: ClassicState) -> bool:
        """Whether its files are where the user can get at them, with his record; blocks."""
        has_record = self._manager.services.store.has_record(state.user)
        return has_record and os.path.lexists(state.image)

    async def give_back(
        self,
        state: ClassicState,
        home: Home | None,
        activity: Activity | None,
        *,
        is_home_area: bool = False,
    ) -> Result:
        """The files first, then the account: whoever logs in in between finds nobody."""

        async def note_tree(_question: str, about: Message) -> Message:
            nonlocal state
            state = replace(state, tree=str(about["tree"]))
            await self._save(state)
            return {}

        told = {**self._home(state), "is_home_area": is_home_area}
        result = await self._run("classic-give-back", told, activity, note_tree)
        if home is not None:
            await self._manager.services.extensions.forget(home.name)
            await home.drop_record()
        lost = await self.put_back(state)
        log.info("%s is a classic account again.", state.user)
        return {"user": state.user, "home": state.home, "lost_groups": lost, **result}

    async def put_back(self, state: ClassicState) -> object:
        """Have the account in the account files, and no memory of the conversion."""
        if state.phase == SURVEYED:
            await asyncio.to_thread(self._store.delete, state.user)
            return []
        more: Result = {"only_if_gone": state.phase == BEGUN}
        if state.phase == RETURNING:
            record = UserRecord(state.record)
            now = record.on(self._manager.services.machine)
            more |= {"record": record.data, "locked": now.locked, "groups": [*now.member_of]}
        result = await self._run("classic-put-back", {**self._account(state), **more})
        await asyncio.to_thread(self._store.delete, state.user)
        return result["lost_groups"]

    # -- help --------------------------------------------------------------------------------

    async def _save(self, state: ClassicState) -> None:
        await asyncio.to_thread(self._store.save, state)

    def _account(self, state: ClassicState) -> Result:
        return {"excerpt": state.excerpt, "own_group": state.own_group}

    def _home(self, state: ClassicState) -> Result:
        names = ("uid", "gid", "home", "image", "tree", "files", "record")
        return {
            **{name: getattr(state, name) for name in names},
            "lock_file": self._manager.services.config.lock_file,
        }

    async def _run(
        self,
        verb: str,
        arguments: Result,
        activity: Activity | None = None,
        on_question: OnQuestion | None = None,
    ) -> Result:
        services = self._manager.services
        told = {
            "directory": self._store.directory,
            "account_directory": services.config.account_directory,
            "home_root": services.config.home_root,
        }
        return await services.runner.run(
            verb,
            {**told, **arguments},
            on_progress=activity.note if activity else None,
            on_question=on_question,
            cancelled=activity.cancelled if activity else None,
        )


async def _require_no_snapshots(home: Home) -> None:
    """Raise NotSupported if somebody took snapshots on purpose: no account has any."""
    rows = cast("list[JsonObject]", await snapshots.listed(home))
    taken = [str(row["name"]) for row in rows if not row["automatic"]]
    if taken:
        raise errors.NotSupported(
            f"There are snapshots of home area {home.name}, which a classic account cannot have:"
            f" {', '.join(taken)}. Restore from them what is needed, remove them with `homemgr"
            " snapshot remove`, then try again."
        )
