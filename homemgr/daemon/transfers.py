"""Homes on their way to and from other machines: the runs, and all that they need.

One run for each user at a time. What a worker asks meanwhile is answered by ``sending`` and
``receiving``; ``transfer_register`` knows the states, and ``places`` changes a home's place
among the homes of this machine.

Arguments for the workers: ``send`` and ``export`` get what every verb on a home gets, and
options, ledger_directory, image_path, phase, left_name and tree (of the state on disk);
``receive`` and ``import`` get options, base_directory, ledger_directory, machine,
public_keys, own_keys and receiver (this machine, for the sender). Descriptors: in, out; one
alone for export and import.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import in_vain, leases
from homemgr.daemon.attempts import counted, counted_later
from homemgr.daemon.home import Home, now_usec
from homemgr.daemon.introductions import receiver_of
from homemgr.daemon.origins import Origin, Origins, check_fingerprint
from homemgr.daemon.places import Places
from homemgr.daemon.receiving import Receiving
from homemgr.daemon.sending import Sending
from homemgr.daemon.states import Operation
from homemgr.daemon.transfer_register import TransferRegister
from homemgr.daemon.transfer_states import (
    GONE,
    LEFT,
    SENDING,
    Direction,
    TransferState,
    TransferStore,
)
from homemgr.record.names import is_device
from homemgr.record.storages import is_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from homemgr.daemon.activity import Activity
    from homemgr.daemon.manager import Manager
    from homemgr.daemon.transfer_options import ReceiveOptions, SendOptions
    from homemgr.record.secret import Secret

log = logging.getLogger(__name__)


class Transfers:
    """All transfers of one daemon. Owned by the manager."""

    def __init__(self, manager: Manager) -> None:
        """Know what is on disk once it is recovered."""
        config = manager.services.config
        self.manager = manager
        self.store = TransferStore(config.transfer_directory, config.reference_directory)
        self.origins = Origins(config.origin_directory)
        self.register = TransferRegister(self.store)
        self.places = Places(manager, self.store, self.register)
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        manager.registry.changed.append(self._note_change)

    # -- start ----------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up what is on disk; before homes are looked for, and after records are loaded."""
        await asyncio.to_thread(self.origins.load)
        await self.register.load()
        await self.places.recover()

    # -- runs -----------------------------------------------------------------------------

    async def send(
        self, activity: Activity, home: Home, options: SendOptions, fds: Sequence[int]
    ) -> dict[str, object]:
        """Send ``home`` through ``fds``, or go on with that; gives the worker's result."""
        self.register.begin(home.name)
        sending = Sending(
            self,
            home,
            options.host,
            is_undo=options.undo,
            call_off=activity.cancel,
            how_far=activity.how_far,
        )
        try:
            async with in_vain.sending(self.register, home.name, activity):
                state = await self._state_to_send(home, options)
                arguments = {
                    **self._of_home(home, state, options.secret),
                    "has_copy": bool(state.machine_id),
                    "options": options.told(),
                }
                is_opened = state.phase == SENDING and not options.undo
                async with self._unlocking(home, options, is_opened=is_opened) as count:
                    sending.count_attempt = count
                    result = await self._work("send", activity, sending, arguments, fds)
            if options.remove and self.register.state("out", home.name).phase == LEFT:
                await self.places.forget_left(home)
            return result
        except errors.Cancelled as error:
            if not sending.was_stopped:
                raise
            raise _stopped(home.name, is_stalled=sending.was_stalled) from error
        finally:
            await sending.close()
            await self._end_sending(home, activity)

    async def export(
        self, activity: Activity, home: Home, options: SendOptions, fds: Sequence[int]
    ) -> dict[str, object]:
        """Write ``home`` to a file; it stays one of this machine."""
        if home.abilities.has_key and not options.plaintext:
            raise errors.NotSupported(
                f"Home area {home.name} is encrypted, and an exported file is not: whoever reads it"
                " has all that is in it. If that is meant, say --plaintext."
            )
        self.register.begin(home.name)
        sending = Sending(self, home, "a file", is_to_file=True)
        try:
            home.check_lease(Operation.AUTHENTICATE)
            _require_fixated(home)
            home.lease = leases.while_read(home.name, "a file")
            state = TransferState(home.name, SENDING, image_path=home.image_path)
            arguments = {
                **self._of_home(home, state, options.secret),
                "options": options.told(),
            }
            async with self._unlocking(home, options, is_opened=True):
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
            self,
            trust=options.trust,
            by_uid=by_uid,
            only=options.name,
            host=options.host,
            storage=options.storage,
            is_from_file=verb == "import",
            on_user=on_user,
        )
        services = self.manager.services
        arguments: dict[str, object] = {
            "options": options.told(),
            "base_directory": services.config.base_directory,
            "ledger_directory": self.store.directory,
            "machine": dataclasses.asdict(services.machine),
            "public_keys": {n: k.pem for n, k in services.keyring.public.items()},
            "own_keys": list(services.keyring.own),
            "receiver": receiver_of(services),
            "secret": options.secret.to_json(),
        }
        try:
            result = await self._work(verb, activity, receiving, arguments, fds)
            state = self.register.find("in", activity.user)
            if state is not None and state.phase == GONE:
                # The origin knows: nothing is left to be said about it.
                await self.register.drop("in", state.user)
                self.places.release(state)
            return result
        except (errors.HomeError, asyncio.CancelledError) as error:
            # Where the home is elsewhere nothing will ever come of what has arrived.
            is_in_vain = verb == "import" or isinstance(error, errors.HomeMoved)
            if receiving.user is not None and is_in_vain:
                await in_vain.forget_arrival(self.register, self.places, receiving.user)
            elif receiving.user is not None and receiving.is_new:
                await in_vain.forget_new(self.register, self.places, receiving.user)
            raise
        finally:
            await self._note_bytes("in", activity)
            await receiving.close()

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

    @asynccontextmanager
    async def _unlocking(
        self, home: Home, options: SendOptions, *, is_opened: bool
    ) -> AsyncIterator[Callable[[], None]]:
        """Count guesses at what opens a home, if it has to be opened in the block.

        Gives what counts one that comes in the block.
        """
        if not is_opened or is_tree(home.effective.storage):
            yield _count_nothing
        elif options.awaits_secret:
            async with counted_later(home) as count:
                yield count
        else:
            async with counted(home, options.secret):
                yield _count_nothing

    def _of_home(self, home: Home, state: TransferState, secret: Secret) -> dict[str, object]:
        return {
            **home.job_arguments(secret),
            "ledger_directory": self.store.directory,
            "image_path": state.image_path or home.image_path,
            "phase": state.phase,
            "left_name": state.aside_name,
            "tree": state.tree,
        }

    async def _state_to_send(self, home: Home, options: SendOptions) -> TransferState:
        host = options.host
        state = self.register.find("out", home.name)
        if state is not None and state.phase != SENDING:
            return state
        # Being made anew, or between two places, it is not to be read.
        home.check_lease(Operation.AUTHENTICATE)
        _require_fixated(home)
        if home.abilities.is_remote:
            raise errors.NotSupported(
                f"Home area {home.name} lies on a file server: register its record there instead."
            )
        if is_device(home.image_path) and not (options.keep or options.undo):
            # Found out before all of it has travelled: a device is not renamed, to be no home.
            raise errors.NotSupported(
                f"Home area {home.name} lies on {home.image_path}, a device, and cannot leave it:"
                " plug the device in there, or send a copy of the home with --keep."
            )
        home.lease = leases.while_read(home.name, host or "another machine")
        if state is not None and (state.host, state.image_path) == (host, home.image_path):
            # Sent there before; what is known of the other machine may help.
            return state
        state = TransferState(home.name, SENDING, host=host, image_path=home.image_path)
        await self.register.save("out", state.at(SENDING))
        return state

    async def _end_sending(self, home: Home, activity: Activity) -> None:
        self.register.end(home.name)
        await self._note_bytes("out", activity)
        state = self.register.find("out", home.name)
        is_ours = home.lease is None or home.lease.is_of_transfer
        if is_ours and (state is None or state.phase == SENDING):
            home.lease = None

    async def _note_bytes(self, direction: Direction, activity: Activity) -> None:
        count = activity.progress.get("bytes")
        if isinstance(count, int):
            await self.register.note_bytes(direction, activity.user, count)

    # -- what the two sides ask for ----------------------------------------------------------

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
        if home.is_mounted:
            self.register.note_use(home.name)
        for future in self._waiting.get(home.name, ()):
            if not future.done():
                future.set_result(None)

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

    async def trust_by_fingerprint(self, fingerprint: str, host: str, *, by_uid: int) -> None:
        """Accept an origin, and the signer of a record that was refused, by fingerprint."""
        check_fingerprint(fingerprint)
        if await self.manager.services.keys.accept_seen(fingerprint):
            return
        await self.trust(Origin(fingerprint, "", host, ""), by_uid=by_uid)


def _stopped(user: str, *, is_stalled: bool) -> errors.HomeError:
    """What to say of a run that was ended for the home to be closed."""
    kept = "What has arrived is kept: run the same command again."
    if is_stalled:
        # Not as interrupted: what the other machine says of it would be shown instead.
        return errors.HomeNotActive(
            f"The other machine took no more of home area {user}, which is not kept open for that"
            f" after its user has logged out. {kept}"
        )
    return errors.HomeNotActive(
        f"Home area {user} was deactivated or locked while it was copied. {kept}"
    )


def _count_nothing() -> None:
    """What opens the home was counted, or nothing has to."""


def _require_fixated(home: Home) -> None:
    """Raise HomeUnfixated for a home whose own record nobody has accepted here yet."""
    if not home.is_fixated:
        raise errors.HomeUnfixated(f"Home area {home.name} was found on disk but never used.")
