"""A home's place among the homes of this machine: what a transfer changes of it.

In an order in which a kill between any two steps leaves the home usable at one end at most;
`recover` takes up what such a kill left.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.home import Home
from homemgr.daemon.receiving import ARRIVING_PREFIX, ARRIVING_ROOM_PREFIX
from homemgr.daemon.sending import lease_of
from homemgr.daemon.transfer_states import (
    COMMITTED,
    GONE,
    LEAVING,
    LEFT,
    PASSED,
    PREPARED,
    RECEIVING,
)
from homemgr.record import names, storages

if TYPE_CHECKING:
    from homemgr.daemon.manager import Manager
    from homemgr.daemon.transfer_options import ForgetOptions
    from homemgr.daemon.transfer_register import TransferRegister
    from homemgr.daemon.transfer_states import TransferState, TransferStore
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.model import UserRecord

log = logging.getLogger(__name__)

_ARRIVING = (ARRIVING_PREFIX, ARRIVING_ROOM_PREFIX)


class Places:
    """Takes homes in, lets them go and forgets them."""

    def __init__(self, manager: Manager, store: TransferStore, register: TransferRegister) -> None:
        """Change the homes of ``manager``, as the states of ``register`` say."""
        self._manager = manager
        self._store = store
        self._register = register

    async def recover(self) -> None:
        """Have homes be where the states on disk say, after a start."""
        for state in self._register.all("in"):
            await self._recover_incoming(state)
        for state in self._register.all("out"):
            await self._recover_outgoing(state)
        for path in await asyncio.to_thread(self._dead_arrivals):
            log.info("Deleting %s, which arrived for a transfer that is forgotten.", path)
            await self._delete_beside(*os.path.split(path))

    def _dead_arrivals(self) -> list[str]:
        """Trees that arrived and that no state on disk tells of; blocks.

        Nobody has but one copy there: the origin keeps its own until a tree is a home.
        Trees of homes that left are never taken for dead.
        """
        directory = self._manager.services.config.base_directory
        try:
            found = [name for name in os.listdir(directory) if name.startswith(_ARRIVING)]
        except FileNotFoundError:
            return []
        known = {state.aside_name for state in self._register.all("in")}
        return [
            os.path.join(directory, name)
            for name in found
            if name not in known and self._store.is_unheard_of(_user_of(name))
        ]

    async def _recover_incoming(self, state: TransferState) -> None:
        if state.phase in (COMMITTED, PASSED):
            return
        home = self._manager.registry.by_name(state.user)
        if state.is_from_file and state.is_worthless:
            # It is a home by now, or it never will be: then what came of it is dead.
            await self._register.drop("in", state.user)
        elif home is None:
            if self._register.find("out", state.user) is None:
                self._manager.registry.hold(state.user, state.uid)
        elif (
            state.phase == GONE
            and self._register.find("out", state.user) is None
            and home.image_path == state.image_path
        ):
            # Killed between the promise to give it up and the deed.
            await self.give_up(home)

    async def _recover_outgoing(self, state: TransferState) -> None:
        home = self._manager.registry.by_name(state.user)
        incoming = self._register.find("in", state.user)
        has_arrived = incoming is not None and incoming.phase in (PREPARED, COMMITTED)
        if state.phase == LEFT and home is not None and has_arrived:
            # It had come back when we were killed.
            await self._forget_kept(state)
            return
        if state.phase == LEFT:
            record = await asyncio.to_thread(self._store.left_record, state.user)
            if home is None and record is not None:
                home = Home(self._manager.services, record, is_fixated=True)
                self._manager.enlist(home)
            elif home is not None:
                # Killed between the two copies of the record.
                await home.withdraw_record()
        if home is not None and state.phase in (LEAVING, LEFT):
            home.lease = lease_of(state)
            home.is_present = state.phase == LEAVING

    def release(self, state: TransferState) -> None:
        """Give up name and uid that were held for an arriving home."""
        self._manager.registry.release(state.user)

    async def let_go(self, home: Home, state: TransferState) -> None:
        """The home is the other machine's: its record moves to those of homes that left."""
        # The copy, the state, and only then the record: killed in between there are two of them, of
        # which the next start takes one away.
        await asyncio.to_thread(self._store.keep_left, home.name, home.record.for_host())
        await self._register.save("out", state)
        home.lease = lease_of(state)
        await home.withdraw_record()

    async def pass_on(self, user: str, host: str) -> None:
        """That the home once came here is over: it is about to leave, to ``host``.

        Had a killed daemon both states to read, it would take what leaves for what came back.
        What stays is that its origin has nothing to bring back from here, if it asks.
        """
        state = self._register.find("in", user)
        if state is None:
            return
        if state.phase in (PREPARED, COMMITTED):
            await self._register.save("in", state.passed_on(host))
            with suppress(OSError):
                await asyncio.to_thread(self._store.delete_ledgers, "in", user)
        else:
            await self._register.drop("in", user)

    async def take_back(self, home: Home) -> None:
        """The home is one of this machine again, as it was when it left."""
        record = home.record.for_host()
        # The record first: as long as the state is there, a kill only has all of this done again.
        await asyncio.to_thread(self._manager.services.store.save, home.name, record)
        await self._register.drop("out", home.name)
        await asyncio.to_thread(self._store.delete_left, home.name)
        home.lease = None
        home.is_present = True
        home.observe()
        self._manager.services.changed(home)

    async def take_in(
        self, state: TransferState, record: UserRecord, *, storage: str, binding: JsonObject
    ) -> Home:
        """List a home that has arrived, and how it lies on disk; its record is there before."""
        services, registry = self._manager.services, self._manager.registry
        machine = services.machine
        binding = {
            **binding,
            "imagePath": state.image_path,
            **storages.members(storage),
            "homeDirectory": record.on(machine).home_directory,
            "uid": state.uid,
            "gid": state.uid,
            "blobDirectory": services.store.blob_directory(state.user),
        }
        bound = record.with_binding(machine.id, binding)
        await asyncio.to_thread(services.store.save, state.user, bound.for_host())
        former = registry.by_name(state.user)
        left = self._register.find("out", state.user)
        if former is not None:
            former.forget()
        registry.release(state.user)
        home = Home(services, bound, is_fixated=True)
        self._manager.enlist(home)
        await asyncio.to_thread(services.store.make_blob_directory, state.user)
        if left is not None:
            await self._forget_kept(left)
        log.info("Home area %s has arrived from %s.", state.user, state.host)
        return home

    async def _forget_kept(self, left: TransferState) -> None:
        """What left once has come back: what was kept of it is older."""
        # That goes first: once the state is dropped nobody looks for it.
        await self.abandon(left)
        await asyncio.to_thread(self._store.delete_left, left.user)
        await self._register.drop("out", left.user)

    async def give_up(self, home: Home) -> None:
        """The home is its origin's again: nobody can use it here from now on."""
        await home.drop_record()
        log.info("Home area %s is given back.", home.name)

    # -- forgetting -------------------------------------------------------------------------

    async def forget(self, user: str, options: ForgetOptions) -> None:
        """Forget a transfer, with the data it keeps if ``remove``.

        Of a home that has left: its record too, so that name and uid are free here. Raises
        TransferBusy while it runs, or while only the same command can tell which end has
        the home (``force`` decides that it is not here).
        """
        direction = self._register.direction_of(user)
        state = self._register.state(direction, user)
        self._register.begin(user)
        try:
            if state.phase in (LEAVING, PREPARED) and not options.force:
                raise errors.TransferBusy(
                    f"The transfer of {user} is {state.phase}: the home may be at either end. "
                    "Run the command that began it again, or undo it there."
                )
            if state.phase in (LEFT, LEAVING):
                home = self._manager.registry.require(user)
                await self.forget_left(home, remove=options.remove)
                self._hold_for_arrival(user)
                return
            await self._register.drop(direction, user)
            if direction == "in" and state.phase != COMMITTED:
                self.release(state)
                await self.abandon(state)
        finally:
            self._register.end(user)

    def _hold_for_arrival(self, user: str) -> None:
        """Keep name and uid if the home is on its way back: who had left kept them until now."""
        arriving = self._register.find("in", user)
        if arriving is not None and arriving.phase in (RECEIVING, PREPARED):
            self._manager.registry.hold(user, arriving.uid)

    async def forget_left(self, home: Home, *, remove: bool = True) -> None:
        """Forget a home that has left, and delete what was kept of it if so wanted."""
        state = self._register.state("out", home.name)
        if remove:
            # Also what a conversion kept of it, which may be readable where the home was not.
            await self._manager.services.removing(home.name)
            await self.abandon(state)
        await asyncio.to_thread(self._store.delete_left, home.name)
        await self._register.drop("out", home.name)
        await home.drop_record()

    async def abandon(self, state: TransferState) -> None:
        """Delete the tree beside homes that a transfer keeps, if there is one."""
        if not state.aside_name:
            return
        await self._delete_beside(os.path.dirname(state.image_path), state.aside_name)

    async def _delete_beside(self, directory: str, name: str) -> None:
        arguments = {"directory": directory, "name": name}
        try:
            await self._manager.services.runner.run("abandon", arguments)
        except errors.HomeError as error:
            log.warning("%s/%s stays: %s", directory, name, error)


def _user_of(stage_name: str) -> str:
    """Who arrives in a tree; empty if its name is not one of ours."""
    name = stage_name.removeprefix(ARRIVING_PREFIX).removeprefix(ARRIVING_ROOM_PREFIX)
    file_name = name.rpartition(".")[0]
    named = names.parse_image_file_name(file_name)
    return named[0] if named else ""
