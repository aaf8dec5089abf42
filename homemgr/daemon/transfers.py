"""Homes on their way to and from other machines: runs, leases, what is on disk, recovery.

One run for each user at a time. What a worker asks meanwhile is answered by ``sending`` and
``receiving``; here is what changes a home's place among the homes of this machine, in an
order in which a kill between any two steps leaves it usable at one end at most.

Arguments for the workers: ``send`` and ``export`` get what every verb on a home gets, and
options, ledger_directory, image_path, phase and left_name (of the state on disk);
``receive`` and ``import`` get options, base_directory, ledger_directory, machine,
public_keys and own_keys. Descriptors: in, out; one alone for export and import.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import leases
from homemgr.daemon.home import Home, now_usec
from homemgr.daemon.origins import Origin, Origins, check_fingerprint
from homemgr.daemon.receiving import Receiving
from homemgr.daemon.sending import Sending, lease_of
from homemgr.daemon.states import Operation
from homemgr.daemon.transfer_states import (
    COMMITTED,
    GONE,
    LEAVING,
    LEFT,
    PREPARED,
    RECEIVING,
    SENDING,
    Direction,
    TransferState,
    TransferStore,
)
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homemgr.daemon.activity import Activity
    from homemgr.daemon.manager import Manager
    from homemgr.daemon.transfer_options import ForgetOptions, ReceiveOptions, SendOptions
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.model import UserRecord

log = logging.getLogger(__name__)


class Transfers:
    """All transfers of one daemon. Owned by the manager."""

    def __init__(self, manager: Manager) -> None:
        """Know what is on disk once it is recovered."""
        config = manager.services.config
        self.manager = manager
        self.store = TransferStore(config.transfer_directory)
        self.origins = Origins(config.origin_directory)
        self._states: dict[tuple[Direction, str], TransferState] = {}
        self._running: set[str] = set()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        manager.registry.changed.append(self._note_change)

    # -- start ----------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up what is on disk; before homes are looked for, and after records are loaded."""
        await asyncio.to_thread(self.origins.load)
        self._states = await asyncio.to_thread(self.store.load)
        for (direction, _), state in list(self._states.items()):
            if direction == "in":
                await self._recover_incoming(state)
        for (direction, _), state in list(self._states.items()):
            if direction == "out":
                await self._recover_outgoing(state)

    async def _recover_incoming(self, state: TransferState) -> None:
        if state.phase == COMMITTED:
            return
        home = self.manager.registry.by_name(state.user)
        if home is None:
            if self.find("out", state.user) is None:
                self.manager.registry.hold(state.user, state.uid)
        elif state.phase == GONE and self.find("out", state.user) is None:
            # Killed between the promise to give it up and the deed.
            await self.give_up(home)

    async def _recover_outgoing(self, state: TransferState) -> None:
        home = self.manager.registry.by_name(state.user)
        incoming = self.find("in", state.user)
        if home is not None and incoming and incoming.phase in (PREPARED, COMMITTED):
            # It had come back when we were killed.
            await self._drop("out", state.user)
            return
        if state.phase == LEFT:
            record = await asyncio.to_thread(self.store.left_record, state.user)
            if home is None and record is not None:
                home = Home(self.manager.services, record, is_fixated=True)
                self.manager.enlist(home)
            elif home is not None:
                # Killed between the two copies of the record.
                await home.withdraw_record()
        if home is not None and state.phase in (LEAVING, LEFT):
            home.lease = lease_of(state)
            home.is_present = state.phase == LEAVING

    # -- runs -----------------------------------------------------------------------------

    async def send(
        self, activity: Activity, home: Home, options: SendOptions, fds: Sequence[int]
    ) -> dict[str, object]:
        """Send ``home`` through ``fds``, or go on with that; gives the worker's result."""
        self._begin(home.name)
        sending = Sending(self, home, options.host, is_undo=options.undo)
        try:
            state = await self._state_to_send(home, options.host)
            result = await self._work(
                "send",
                activity,
                sending,
                {**self._of_home(home, state), "options": options.told()},
                fds,
            )
            if options.remove and self.state("out", home.name).phase == LEFT:
                await self._forget_left(home)
            return result
        finally:
            await sending.close()
            await self._end_sending(home, activity)

    async def export(
        self, activity: Activity, home: Home, options: SendOptions, fds: Sequence[int]
    ) -> dict[str, object]:
        """Write ``home`` to a file; it stays one of this machine."""
        self._begin(home.name)
        sending = Sending(self, home, "a file")
        try:
            home.check_lease(Operation.AUTHENTICATE)
            _require_fixated(home)
            home.lease = leases.while_read(home.name, "a file")
            state = TransferState(home.name, SENDING, image_path=home.image_path)
            arguments = {**self._of_home(home, state), "options": options.told()}
            return await self._work("export", activity, sending, arguments, fds)
        finally:
            await sending.close()
            await self._end_sending(home, activity)

    async def receive(
        self,
        verb: str,
        activity: Activity,
        options: ReceiveOptions,
        fds: Sequence[int],
        *,
        by_uid: int,
    ) -> dict[str, object]:
        """Receive or import (``verb``) whatever comes through ``fds``, if its origin is trusted."""

        def on_user(name: str) -> None:
            activity.user = name

        receiving = Receiving(
            self, trust=options.trust, by_uid=by_uid, only=options.name, on_user=on_user
        )
        services = self.manager.services
        arguments: dict[str, object] = {
            "options": options.told(),
            "base_directory": services.config.base_directory,
            "ledger_directory": self.store.directory,
            "machine": dataclasses.asdict(services.machine),
            "public_keys": {n: k.pem for n, k in services.keyring.public.items()},
            "own_keys": list(services.keyring.own),
        }
        try:
            result = await self._work(verb, activity, receiving, arguments, fds)
            state = self.find("in", activity.user)
            if state is not None and state.phase == GONE:
                # The origin knows: nothing is left to be said about it.
                await self._drop("in", state.user)
                self.release(state)
            return result
        except errors.HomeError:
            if verb == "import":
                await self._forget_import(activity.user)
            raise
        finally:
            await self._note_bytes("in", activity)
            await receiving.close()

    async def _forget_import(self, user: str) -> None:
        """A file is read from its beginning or not at all: nothing waits for the next run."""
        state = self.find("in", user)
        if state is not None and state.phase == RECEIVING:
            await self._drop("in", user)
            self.release(state)

    async def _work(
        self,
        verb: str,
        activity: Activity,
        side: Sending | Receiving,
        arguments: dict[str, object],
        fds: Sequence[int],
    ) -> dict[str, object]:
        return await self.manager.services.runner.run(
            verb,
            arguments,
            fds,
            on_progress=activity.note,
            on_question=side.answer,
            cancelled=activity.cancelled,
        )

    def _of_home(self, home: Home, state: TransferState) -> dict[str, object]:
        return {
            **home.job_arguments(Secret()),
            "ledger_directory": self.store.directory,
            "image_path": state.image_path or home.image_path,
            "phase": state.phase,
            "left_name": state.aside_name,
        }

    async def _state_to_send(self, home: Home, host: str) -> TransferState:
        state = self.find("out", home.name)
        if state is not None and state.phase != SENDING:
            return state
        _require_fixated(home)
        home.lease = leases.while_read(home.name, host or "another machine")
        state = TransferState(home.name, SENDING, host=host, image_path=home.image_path)
        await self.save("out", state.at(SENDING))
        return state

    def _begin(self, user: str) -> None:
        if user in self._running:
            raise errors.TransferBusy(f"A transfer of home area {user} is under way.")
        self._running.add(user)

    async def _end_sending(self, home: Home, activity: Activity) -> None:
        self._running.discard(home.name)
        await self._note_bytes("out", activity)
        state = self.find("out", home.name)
        if state is None or state.phase == SENDING:
            home.lease = None

    async def _note_bytes(self, direction: Direction, activity: Activity) -> None:
        state, count = self.find(direction, activity.user), activity.progress.get("bytes")
        if state is not None and isinstance(count, int) and count != state.bytes:
            # For the list alone.
            with suppress(errors.HomeError):
                await self.save(direction, dataclasses.replace(state, bytes=count))

    # -- what the two sides ask for ----------------------------------------------------------

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
        await asyncio.to_thread(self.store.save, direction, state)
        self._states[direction, state.user] = state

    def begin_receiving(self, user: str) -> None:
        """Let nobody else send or receive this user; raises TransferBusy."""
        self._begin(user)

    def end_receiving(self, user: str) -> None:
        """The run is over."""
        self._running.discard(user)

    async def changed_home(self, user: str) -> None:
        """Return when something about this home has changed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(user, [])
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)

    def _note_change(self, home: Home) -> None:
        for future in self._waiting.get(home.name, ()):
            if not future.done():
                future.set_result(None)

    def hides(self, image_path: str) -> bool:
        """Whether an image on disk is none to be found: it arrives, or was given back."""
        return any(
            direction == "in" and state.phase != COMMITTED and state.image_path == image_path
            for (direction, _), state in self._states.items()
        )

    def release(self, state: TransferState) -> None:
        """Give up name and uid that were held for an arriving home."""
        self.manager.registry.release(state.user)

    async def trust(self, origin: Origin, *, by_uid: int) -> None:
        """Accept an origin from now on."""
        await self.origins.trust(origin, now_usec=now_usec(), by_uid=by_uid)

    def chosen_extensions(self, user: str) -> list[str]:
        """The user's own extensions, which go with him."""
        return list(self.manager.services.extensions.chosen(user))

    async def choose_extensions(self, home: Home, wanted: Iterable[str]) -> None:
        """Those of ``wanted`` that are offered here become the user's own."""
        for name in wanted:
            try:
                await self.manager.services.extensions.choose(home, name, is_chosen=True)
            except errors.HomeError as error:
                log.info("%s", error)

    # -- a home's place among the homes of this machine ---------------------------------------

    async def let_go(self, home: Home, state: TransferState) -> None:
        """The home is the other machine's: its record moves to those of homes that left."""
        await asyncio.to_thread(self.store.keep_left, home.name, home.record.for_host())
        await self.save("out", state)
        home.lease = lease_of(state)
        await home.withdraw_record()

    async def forget_arrival(self, user: str) -> None:
        """That the home once came here is over: it is about to leave.

        Had a killed daemon both states to read, it would take what leaves for what came back.
        """
        if self.find("in", user) is not None:
            await self._drop("in", user)

    async def take_back(self, home: Home) -> None:
        """The home is one of this machine again, as it was when it left."""
        record = home.record.for_host()
        await asyncio.to_thread(self.manager.services.store.save, home.name, record)
        await self._drop("out", home.name)
        await asyncio.to_thread(self.store.delete_left, home.name)
        home.lease = None
        home.is_present = True
        home.observe()
        self.manager.services.changed(home)

    async def take_in(self, state: TransferState, record: UserRecord) -> Home:
        """List a home that has arrived; its record is on disk before."""
        services, registry = self.manager.services, self.manager.registry
        machine = services.machine
        binding: JsonObject = {
            "imagePath": state.image_path,
            "storage": "directory",
            "homeDirectory": record.on(machine).home_directory,
            "uid": state.uid,
            "gid": state.uid,
            "blobDirectory": services.store.blob_directory(state.user),
        }
        bound = record.with_binding(machine.id, binding)
        await asyncio.to_thread(services.store.save, state.user, bound.for_host())
        former = registry.by_name(state.user)
        left = self.find("out", state.user)
        if former is not None:
            former.forget()
        registry.release(state.user)
        home = Home(services, bound, is_fixated=True)
        self.manager.enlist(home)
        await asyncio.to_thread(services.store.make_blob_directory, state.user)
        if left is not None:
            await self._drop("out", state.user)
            await asyncio.to_thread(self.store.delete_left, state.user)
            await self._abandon(left)
        log.info("Home area %s has arrived from %s.", state.user, state.host)
        return home

    async def give_up(self, home: Home) -> None:
        """The home is its origin's again: nobody can use it here from now on."""
        await home.drop_record()
        log.info("Home area %s is given back.", home.name)

    # -- lists ----------------------------------------------------------------------------

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

    async def forget(self, user: str, options: ForgetOptions) -> None:
        """Forget a transfer, with the data it keeps if ``remove``.

        Of a home that has left: its record too, so that name and uid are free here. Raises
        TransferBusy while it runs, or while only the same command can tell which end has
        the home (``force`` decides that it is not here).
        """
        direction = self.direction_of(user)
        state = self.state(direction, user)
        self._begin(user)
        try:
            if state.phase in (LEAVING, PREPARED) and not options.force:
                raise errors.TransferBusy(
                    f"The transfer of {user} is {state.phase}: the home may be at either end. "
                    "Run the command that began it again, or undo it there."
                )
            if state.phase in (LEFT, LEAVING):
                home = self.manager.registry.require(user)
                await self._forget_left(home, remove=options.remove)
                return
            await self._drop(direction, user)
            if direction == "in" and state.phase != COMMITTED:
                self.release(state)
                await self._abandon(state)
        finally:
            self._running.discard(user)

    async def _forget_left(self, home: Home, *, remove: bool = True) -> None:
        """Forget a home that has left, and delete what was kept of it if so wanted."""
        state = self.state("out", home.name)
        if remove:
            await self._abandon(state)
        await asyncio.to_thread(self.store.delete_left, home.name)
        await self._drop("out", home.name)
        await home.drop_record()

    async def _abandon(self, state: TransferState) -> None:
        """Delete the tree beside homes that a transfer keeps, if there is one."""
        if not state.aside_name:
            return
        directory = os.path.dirname(state.image_path)
        arguments = {"directory": directory, "name": state.aside_name}
        try:
            await self.manager.services.runner.run("abandon", arguments)
        except errors.HomeError as error:
            log.warning("%s/%s stays: %s", directory, state.aside_name, error)

    async def _drop(self, direction: Direction, user: str) -> None:
        await asyncio.to_thread(self.store.delete, direction, user)
        self._states.pop((direction, user), None)

    async def trust_by_fingerprint(self, fingerprint: str, host: str, *, by_uid: int) -> None:
        """Accept an origin, and the signer of a record that was refused, by fingerprint."""
        check_fingerprint(fingerprint)
        if await self.manager.services.keys.accept_seen(fingerprint):
            return
        await self.trust(Origin(fingerprint, "", host, ""), by_uid=by_uid)


def _require_fixated(home: Home) -> None:
    """Raise HomeUnfixated for a home whose own record nobody has accepted here yet."""
    if not home.is_fixated:
        raise errors.HomeUnfixated(f"Home area {home.name} was found on disk but never used.")
