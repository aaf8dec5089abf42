"""This machine's side of a home that leaves it: what its worker asks while it sends.

Decides when the home stops being one of this machine: ``leave`` is on disk before the
worker renames the data away, ``come-back`` is asked after it renamed them back, so that
whatever is killed, the home is usable at one end at most, and the same command goes on.
Also answers the worker of an export, which has no other end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import leases
from homemgr.daemon.activity import to_the_end
from homemgr.daemon.found import take_newer
from homemgr.daemon.introductions import (
    A_FILE,
    Wishes,
    content_text,
    digest_of,
    introduction_text,
    machine_of,
    nonce_of,
    own_key,
)
from homemgr.daemon.reader import Reader
from homemgr.daemon.states import Operation
from homemgr.daemon.transfer_states import LEAVING, LEFT, SENDING, TransferState
from homemgr.record.signature import named_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from homemgr.daemon.home import Home
    from homemgr.daemon.transfers import Transfers
    from homemgr.job import Message
    from homemgr.record.signature import PrivateKey

log = logging.getLogger(__name__)

LEFT_PREFIX = ".#homemgr-left-"


class Sending:
    """One run of a transfer out of this machine; `close` it at its end."""

    def __init__(
        self,
        transfers: Transfers,
        home: Home,
        host: str,
        *,
        is_undo: bool = False,
        is_to_file: bool = False,
        call_off: Callable[[], None] = lambda: None,
        how_far: Callable[[], object] = lambda: None,
    ) -> None:
        """Answer for ``home``, on its way to ``host``, or to have it back from there.

        ``call_off`` has this run end soon; ``how_far`` gives what differs once it has got on.
        """
        self._is_undo = is_undo
        self._transfers = transfers
        self._home = home
        self._host = host
        self._held = AsyncExitStack()
        self._is_frozen = False
        self._reader = Reader(home, call_off, how_far)
        #: What counts an attempt to open the home with words that came through the stream.
        self.count_attempt: Callable[[], None] = _expect_none
        #: Whom it is sent to, and what that one made up; a machine says who it is.
        self._receiver = A_FILE if is_to_file else ""
        self._nonce = b""
        self._questions: dict[str, Callable[[Message], Coroutine[None, None, Message]]] = {
            "introduce": self._introduce,
            "seal": self._seal,
            "peer": self._peer,
            "words": self._note_words,
            "use": self._use,
            "unuse": self._end_use,
            "freeze": self._freeze,
            "found": self._found,
            "leave": self._leave,
            "left": self._note_left,
            "come-back": self._come_back,
        }

    async def answer(self, question: str, about: Message) -> Message:
        """Answer the worker; raises what the worker is to fail with."""
        if question not in self._questions:
            raise errors.InvalidArgs(f"There is no question {question} about a home that is sent.")
        answering = self._questions[question](about)
        # These only wait for the home, perhaps for ever: a job that is ended has to get out of it.
        if question in ("use", "freeze"):
            return await answering
        # A step that was begun is finished, also if the job is ended in the middle of it: before
        # that nobody may use the home, which may be another machine's when it is.
        return await to_the_end(answering)

    async def close(self) -> None:
        """Let the home be used again, unless it is another machine's by now."""
        self._reader.end()
        self._is_frozen = False
        await self._held.aclose()

    @property
    def was_stopped(self) -> bool:
        """Whether this run was called off because the home was to be closed or locked."""
        return self._reader.is_stopped

    @property
    def was_stalled(self) -> bool:
        """Whether that was because the other side took nothing after the last session."""
        return self._reader.is_stalled

    # -- the questions ---------------------------------------------------------------------

    async def _introduce(self, about: Message) -> Message:
        """Who sends what, and wishes what: signed, with ``receiver`` and its ``nonce`` (hex)."""
        home, services = self._home, self._home.services
        if self._receiver != A_FILE:
            self._receiver = str(about.get("receiver", ""))
            self._require_peer(machine_of(self._receiver))
        self._nonce = nonce_of(about)
        key = self._key()
        record = home.record.embedded()
        signer = named_signer(record)
        wishes = Wishes(home.uid, tuple(self._transfers.chosen_extensions(home.name)))
        text = introduction_text(self._nonce, self._receiver, record, wishes)
        return {
            "record": record.data,
            "uid": wishes.uid,
            "origin": {
                "fingerprint": key.public.fingerprint,
                "public_key": key.public.pem,
                "machine_id": services.machine.id,
                "hostname": services.machine.hostname or "",
            },
            "receiver": self._receiver,
            "signature": key.sign(text).hex(),
            "signer": signer and {"fingerprint": signer.fingerprint, "public_key": signer.pem},
            "extensions": list(wishes.extensions),
        }

    async def _seal(self, about: Message) -> Message:
        """All was sent: ``record`` as it is now, and a ``seal`` of it and the ``digest`` (hex)."""
        if not self._nonce:
            raise errors.StreamError("A seal was asked for before an introduction.")
        digest, record = digest_of(about), self._home.record.embedded()
        text = content_text(self._nonce, self._receiver, digest, record)
        return {"record": record.data, "seal": self._key().sign(text).hex()}

    def _key(self) -> PrivateKey:
        key = own_key(self._home.services.keyring)
        if key is None:
            raise errors.NoPrivateKey("This machine has no key to introduce itself with.")
        return key

    def _require_peer(self, machine_id: str) -> None:
        """Raise InvalidArgs or TransferBusy unless the home may go to this machine."""
        if machine_id == self._home.services.machine.id:
            raise errors.InvalidArgs(f"Home area {self._home.name} is on that machine already.")
        state = self._state
        if state.phase != SENDING and machine_id != state.machine_id:
            raise errors.TransferBusy(
                f"Home area {self._home.name} is on its way to {state.host}; run the same "
                "command again, to that machine."
            )

    async def _peer(self, about: Message) -> Message:
        """Note who receives; gives the ``ledger`` of what both know. Another one is refused."""
        machine_id = str(about.get("machine_id", ""))
        # As the caller calls it: under that name it is reached again.
        host = self._host or str(about.get("hostname", ""))
        if machine_id != machine_of(self._receiver):
            raise errors.WrongReceiver("The other machine says it is one, and then another.")
        state = self._state
        self._host = state.host if state.phase != SENDING else host
        await self._save(state.at(state.phase, machine_id=machine_id, host=self._host))
        is_secret = self._home.abilities.has_key
        store = self._transfers.store
        return {"ledger": store.ledger("out", self._home.name, machine_id, is_secret=is_secret)}

    async def _note_words(self, _about: Message) -> Message:
        """Words have come that may open the home, and are about to be tried."""
        self.count_attempt()
        return {}

    async def _use(self, _about: Message) -> Message:
        """The home is in use, and stays so until ``unuse``; see `reader`.

        Raises HomeNotActive and HomeLocked, once what runs on the home has ended.
        """
        async with self._home.exclusively(Operation.REFERENCE, queued=True):
            self._reader.begin()
        return {}

    async def _end_use(self, _about: Message) -> Message:
        """Nothing of the home is open any more in the worker."""
        self._reader.end()
        return {}

    async def _freeze(self, about: Message) -> Message:
        """Wait up to ``wait_s`` (null: for ever) until nobody uses the home, and keep it so.

        Who logs in meanwhile waits for the end of this run. Asked again it has no effect.
        """
        state = self._transfers.register.find("out", self._home.name)
        if self._is_frozen or (state is not None and state.phase != SENDING):
            # What leaves cannot be used here anyway.
            return {}
        given = about.get("wait_s")
        wait_s = float(given) if isinstance(given, (int, float)) else None
        try:
            async with asyncio.timeout(wait_s):
                while not await self._try_to_freeze():
                    await self._transfers.changed_home(self._home.name)
        except TimeoutError as late:
            raise errors.HomeBusy(
                f"Home area {self._home.name} is still in use after {wait_s:g} seconds."
            ) from late
        return {}

    async def _found(self, about: Message) -> Message:
        """The ``record`` that lies in the home; see `take_newer`."""
        if self._is_frozen:
            await take_newer(self._home, about)
        return {}

    async def _leave(self, about: Message) -> Message:
        """The home, ``tree``, stops being one of this machine; gives ``left_name`` to rename it to.

        Asked again it gives both as they were the first time.
        """
        state = self._state
        if state.phase == SENDING:
            if not self._is_frozen:
                raise errors.HomeBusy(f"Home area {self._home.name} may be in use.")
            await self._home.flush()
            file_name = os.path.basename(self._home.image_path)
            left_name = f"{LEFT_PREFIX}{file_name}.{secrets.token_hex(4)}"
            state = state.at(
                LEAVING,
                aside_name=left_name,
                image_path=self._home.image_path,
                host=self._host,
                tree=_tree_of(about),
            )
            # Before the new state: a daemon that found both would take it for what came back.
            await self._transfers.places.pass_on(self._home.name, self._host)
            await self._save(state)
            self._home.lease = lease_of(state)
        return {"left_name": state.aside_name, "tree": state.tree}

    async def _note_left(self, _about: Message) -> Message:
        """The other side has it: the record is put with those of homes that left."""
        state = self._state
        if state.phase == SENDING:
            raise errors.HomeError(f"Home area {self._home.name} was never told to leave.")
        if state.phase == LEAVING:
            state = state.at(LEFT)
            await self._transfers.places.let_go(self._home, state)
        self._home.is_present = False
        self._home.services.changed(self._home)
        # Who waited is told where the home is.
        await self.close()
        log.info("Home area %s has moved to %s.", self._home.name, state.host)
        return {}

    async def _come_back(self, _about: Message) -> Message:
        """The other side gave it up and the data lie in their old place: it is a home again."""
        state = self._state
        if state.phase != SENDING:
            await self._transfers.places.take_back(self._home)
            if not self._is_undo:
                # It is sent again in this very run.
                await self._save(state.at(SENDING))
                self._home.lease = leases.while_read(self._home.name, state.host)
        log.info("Home area %s is back.", self._home.name)
        return {}

    # -- holding the home -------------------------------------------------------------------

    @property
    def _state(self) -> TransferState:
        return self._transfers.register.state("out", self._home.name)

    async def _save(self, state: TransferState) -> None:
        await self._transfers.register.save("out", state)

    async def _try_to_freeze(self) -> bool:
        """Hold the home if it is not in use now."""
        async with AsyncExitStack() as attempt:
            try:
                await attempt.enter_async_context(
                    self._home.exclusively(Operation.FREEZE, queued=True, background=True)
                )
            except errors.HomeBusy:
                return False
            self._is_frozen = True
            await self._held.enter_async_context(attempt.pop_all())
        return True


def _expect_none() -> None:
    raise errors.InvalidArgs("No words were to come through the stream.")


def _tree_of(about: Message) -> str:
    tree = str(about.get("tree", ""))
    if not tree:
        raise errors.HomeAbsent("The home area is not where it was.")
    return tree


def lease_of(state: TransferState) -> leases.Lease:
    """What is answered about a home that leaves or has left."""
    day = time.strftime("%Y-%m-%d", time.gmtime(state.when // 1_000_000))
    if state.phase == LEFT:
        return leases.moved(f"Home area {state.user} was moved to {state.host} on {day}.")
    return leases.moved(
        f"Home area {state.user} is on its way to {state.host} since {day}; "
        "the command that moves it has to be run again."
    )
