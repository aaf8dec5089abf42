"""Homes that become homes of another storage, or in another place: the runs, and what is kept.

A worker makes the new home while nobody uses the old one. Then both change places and the
record's binding names the new one; whatever is killed, that is done to its end at the next
start, or nothing of it. The old home is kept until somebody confirms, or has it back.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import leases
from homemgr.daemon.activity import to_the_end
from homemgr.daemon.attempts import attempt, looking
from homemgr.daemon.conversion_plan import passwords_of, planned
from homemgr.daemon.conversion_register import ConversionRegister
from homemgr.daemon.conversion_states import (
    DROPPING,
    KEPT,
    MAKING,
    RETURNING,
    SWITCHING,
    Conversion,
    ConversionStore,
)
from homemgr.daemon.conversion_switch import Switch, scratch_of
from homemgr.daemon.found import take_newer
from homemgr.daemon.held_room import held_room
from homemgr.daemon.home import image_is_there
from homemgr.daemon.states import Job, Operation
from homemgr.record import storages
from homemgr.record.storages import abilities_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.daemon.activity import Activity
    from homemgr.daemon.conversion_options import ConvertOptions
    from homemgr.daemon.home import Home
    from homemgr.daemon.manager import Manager
    from homemgr.job import Message
    from homemgr.record.secret import Secret

log = logging.getLogger(__name__)


class Conversions:
    """All conversions of one daemon. Owned by the manager."""

    def __init__(self, manager: Manager) -> None:
        """Know what is on disk once it is recovered."""
        self._homes = manager.registry
        self._services = manager.services
        self._register = ConversionRegister(
            ConversionStore(self._services.config.transfer_directory)
        )
        self._switch = Switch(self._services, self._register)
        self._homes.changed.append(self._register.note_use)

    async def recover(self) -> None:
        """Take up what is on disk: what was begun and is not complete never was."""
        for state in await self._register.load():
            home = self._homes.by_name(state.user)
            try:
                if state.phase == MAKING:
                    await self._switch.drop_new(state)
                elif state.phase == DROPPING:
                    await self._switch.drop_old(state)
                elif home is not None and state.phase in (SWITCHING, RETURNING):
                    await self._switch.go_on(home, state)
            except errors.HomeError as error:
                log.error("The conversion of home area %s waits: %s", state.user, error)

    # -- what callers ask for ----------------------------------------------------------------

    async def convert(
        self, activity: Activity, home: Home, options: ConvertOptions, secret: Secret
    ) -> dict[str, object]:
        """Convert ``home``, or finish what a failure left; gives what there is to report."""
        async with home.exclusively(Operation.CONVERT):
            async with self._register.turn(home.name):
                state = self._register.find(home.name)
                if state is not None and state.phase in (MAKING, DROPPING):
                    await self._clear_leftovers(home, state)
                elif state is not None:
                    if state.phase == KEPT:
                        raise errors.HomeExists(
                            f"The home area that {home.name} had before the last conversion is"
                            " still kept: confirm that one or undo it first."
                        )
                    await to_the_end(self._switch.go_on(home, state))
                    return {"phase": self._register.phase(home.name)}
                state = planned(home, options)
                await home.flush()
                state = await self._register.save(state.at(MAKING))
            home.lease = leases.while_converted(
                f"Home area {home.name} is being converted; wait for the end or cancel that."
            )
            try:
                made = await self._make(activity, home, state, options, secret)
                return await to_the_end(self._replace(home, state, made))
            finally:
                self._switch.release(home)

    async def _clear_leftovers(self, home: Home, state: Conversion) -> None:
        """Delete what an earlier conversion could not delete, so that another can be noted."""
        try:
            await to_the_end(self._switch.go_on(home, state))
        except errors.HomeError as error:
            side = state.new if state.phase == MAKING else state.old
            where = side.room or side.image_path
            raise errors.TransferBusy(
                f"What an earlier conversion of {home.name} has left at {where} has to be deleted"
                f" first, or its disk to be unmounted if that is broken: {error}"
            ) from error

    async def undo(self, home: Home, *, force: bool) -> None:
        """Have the home as it was before its conversion; raises HomeExists if it has changed."""
        async with home.exclusively(Operation.CONVERT_BACK), self._register.turn(home.name):
            state = self._register.state(home.name)
            if state.phase == MAKING and state.switched:
                # It was undone, but for what could not be deleted then.
                await to_the_end(self._switch.go_on(home, state))
                return
            if state.phase not in (KEPT, RETURNING):
                raise errors.TransferBusy(f"The conversion of {home.name} is {state.phase}.")
            if state.phase == KEPT:
                state = await self._switch.returning(home, state, force=force)
            # A snapshot that is taken meanwhile would be of the one home or of the other.
            home.lease = leases.while_converted(
                f"The conversion of home area {home.name} is being undone; wait for the end."
            )
            try:
                await to_the_end(self._switch.back(home, state))
            finally:
                self._switch.release(home)

    async def confirm(self, user: str) -> None:
        """Delete what was kept of the home as it was before its conversion.

        Raises HomeAbsent if the new one is not there: it would be the last that there is.
        """
        async with self._register.turn(user):
            state = self._register.state(user)
            path = state.new.image_path
            if state.phase == KEPT and not await asyncio.to_thread(image_is_there, path):
                raise errors.HomeAbsent(
                    f"There is no home area at {path}: what was kept may be all that there is of"
                    f" that of {user}, and stays. --undo --force has it come back."
                )
            await self._confirm(state)

    async def _confirm(self, state: Conversion) -> None:
        if state.phase not in (KEPT, DROPPING):
            raise errors.TransferBusy(f"The conversion of {state.user} is {state.phase}.")
        await to_the_end(self._switch.confirm(state))

    async def removing(self, user: str) -> None:
        """A home is about to be removed: what was kept of it goes as well, also after a kill."""
        async with self._register.turn(user):
            if self._register.phase(user) in (KEPT, DROPPING):
                await self._confirm(self._register.state(user))

    async def writing(self, user: str) -> None:
        """What is in the home is about to change: going back will not be for nothing."""
        await self._register.note_writing(user)

    def former_hashes(self, user: str) -> Sequence[str]:
        """Hashes of the passwords that unlock what is kept of a home, if it is encrypted."""
        state = self._register.find(user)
        return () if state is None else state.former

    def listed(self) -> list[dict[str, object]]:
        """All of them, as a client is shown them."""
        return self._register.listed()

    def rooms(self) -> set[str]:
        """Where homes are made and kept that nobody else is to take for his."""
        return self._register.rooms()

    # -- one run ----------------------------------------------------------------------------

    async def _make(
        self,
        activity: Activity,
        home: Home,
        state: Conversion,
        options: ConvertOptions,
        secret: Secret,
    ) -> dict[str, object]:
        async def answer(question: str, about: Message) -> Message:
            if question == "found":
                await take_newer(home, about)
                return {}
            if question == "record":
                return {"record": home.record.embedded().data}
            raise errors.InvalidArgs(f"There is no question {question} about a conversion.")

        config = self._services.config
        scratch = scratch_of(config, home.name)
        written = (config.record_directory, config.transfer_directory)
        try:
            is_word_needed = (
                not storages.is_tree(state.old.storage) or abilities_of(state.new.storage).has_key
            )
            # For the switch: between two places a disk that is full must not stop it.
            with await to_the_end(asyncio.to_thread(held_room, *written)):
                async with attempt(home, secret) if is_word_needed else looking(home):
                    return await home.work(
                        Job.CONVERT,
                        secret,
                        on_progress=activity.note,
                        on_question=answer,
                        cancelled=activity.cancelled,
                        to_storage=state.new.storage,
                        to_path=state.new.image_path,
                        room=state.new.room,
                        image=state.new.image,
                        scratch=scratch,
                        disk_size=options.disk_size,
                    )
        except BaseException:
            # The worker has tidied up, unless it was killed.
            try:
                await to_the_end(self._switch.drop_new(state))
            except errors.HomeError as error:
                log.warning("What was made of home area %s stays for now: %s", home.name, error)
            raise

    async def _replace(
        self, home: Home, state: Conversion, made: dict[str, object]
    ) -> dict[str, object]:
        """Have what was made as the home. From here on there is no way back but by an undo."""
        new = state.new.holding(made["tree"], made["binding"])
        switching = state.at(
            SWITCHING,
            old=state.old.holding(made["was"]),
            # A device has a name that it keeps wherever it is plugged in.
            new=replace(new, image_path=str(new.binding.get("imagePath", new.image_path))),
            is_renamed=bool(made["is_renamed"]),
            hashes=passwords_of(home),
            former=home.effective.hashed_passwords if home.abilities.has_key else (),
        )
        try:
            state = await self._register.save(switching)
        except errors.HomeError:
            # It may be on disk all the same, and would be done at the next start.
            await self._register.forget(state.user)
            await self._switch.drop_new(state)
            raise
        await self._switch.go_on(home, state)
        told: dict[str, object] = {
            name: made[name] for name in ("files", "bytes", "report") if name in made
        }
        return {
            **told,
            "phase": self._register.phase(home.name),
            "storage": state.new.storage,
            "image_path": state.new.image_path,
            "stays_at": state.old.image_path if state.old.stays else None,
        }
