"""This machine's side of a home that arrives: what its worker asks while it receives.

Decides whether the origin is believed, under which uid the home will be here, and when it
becomes one: after ``prepare`` it may as soon as the origin has let go; ``commit`` is asked
after the worker renamed the data to their final name, and the home can be used when it is
answered. ``undo`` is on disk before the worker renames them back. Also answers the worker
of an import, whose origin is a file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.daemon import accounts, arrival
from homemgr.daemon.activity import to_the_end
from homemgr.daemon.belief import Belief
from homemgr.daemon.home import now_usec
from homemgr.daemon.introductions import A_FILE, Wishes, digest_of, nonce_of, receiver_of
from homemgr.daemon.states import Operation
from homemgr.daemon.transfer_states import (
    COMMITTED,
    GONE,
    LEAVING,
    PASSED,
    PREPARED,
    RECEIVING,
    TransferState,
)
from homemgr.record import changes, names, signature, uids
from homemgr.record.model import UserRecord
from homemgr.record.storages import ABILITIES, abilities_of, is_tree
from homemgr.record.validate import Purpose, parse_embedded, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from homemgr.daemon.home import Home
    from homemgr.daemon.origins import Origin
    from homemgr.daemon.transfers import Transfers
    from homemgr.job import Message
    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)

ARRIVING_PREFIX = ".#homemgr-in-"
#: Of what is no plain tree: see ``storage.rooms``.
ARRIVING_ROOM_PREFIX = ".#homemgr-inroom-"


class Receiving:
    """One run of a transfer into this machine; `close` it at its end."""

    def __init__(
        self,
        transfers: Transfers,
        *,
        trust: Collection[str],
        by_uid: int,
        only: str | None = None,
        host: str = "",
        storage: str = "",
        is_from_file: bool = False,
        on_user: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Accept origins and signers of ``trust`` (fingerprints), in the name of ``by_uid``.

        ``only``: the one user that may arrive. ``host``: what the caller calls the origin.
        ``storage``: what the home is to be here.
        ``on_user`` is told who it is.
        """
        self._transfers = transfers
        self._services = transfers.manager.services
        receiver = A_FILE if is_from_file else receiver_of(self._services)
        self._belief = Belief(transfers, receiver, trust=trust, by_uid=by_uid)
        self._is_from_file = is_from_file
        self._only = only
        self._host = host
        self._storage = storage
        self._on_user = on_user
        self._user: str | None = None
        #: Whether nothing was known of it before this run.
        self.is_new = False
        self._introduced: UserRecord | None = None
        self._extensions: tuple[str, ...] = ()
        self._questions: dict[str, Callable[[Message], Coroutine[None, None, Message]]] = {
            "hello": self._hello,
            "prepare": self._prepare,
            "commit": self._commit,
            "undo": self._undo,
            "restart": self._restart,
        }

    async def answer(self, question: str, about: Message) -> Message:
        """Answer the worker; raises what the worker is to fail with."""
        if question not in self._questions:
            raise errors.InvalidArgs(f"There is no question {question} about an arriving home.")
        if self._user is None and question != "hello":
            raise errors.StreamError(f"{question} was asked before hello.")
        # A step that was begun is finished, also if the job is ended in the middle of it, and
        # no other run begins before.
        return await to_the_end(self._questions[question](about))

    @property
    def user(self) -> str | None:
        """Who arrives; None as long as another run may be his."""
        return self._user

    async def close(self) -> None:
        """End this run; what is on disk stays for the next one."""
        if self._user is not None:
            self._transfers.register.end(self._user)

    # -- the questions ---------------------------------------------------------------------

    async def _hello(self, about: Message) -> Message:
        """Meet the origin: ``introduction`` is what its daemon answered, ``nonce`` ours (hex).

        Gives phase (new, receiving, prepared, committed, gone), went_on (where the home is that
        came from there before), stage_name and file_name in base_directory, tree, ledger, uid,
        report. Raises UntrustedOrigin, BadSignature, WrongReceiver, UserNameExists, TransferBusy
        before anything is on disk.
        """
        introduction = about.get("introduction")
        if not isinstance(introduction, dict):
            raise errors.StreamError("The origin did not introduce itself.")
        record, origin = self._belief.meet(introduction, nonce_of(about))
        validate(record, Purpose.REGISTER, self._services.machine)
        if self._only is not None and record.name != self._only:
            raise errors.InvalidArgs(f"name: expected {self._only}, the home is {record.name}'s.")
        await self._belief.require_trust(record)
        wishes = Wishes.of(introduction)
        self._extensions = wishes.extensions
        self._introduced = record
        self._transfers.register.begin(record.name)
        self._user = record.name
        self._on_user(record.name)
        known = self._transfers.register.find("in", record.name)
        if known is None or known.phase == PASSED:
            storage = about.get("storage")
            state = await self._new(
                record, origin, wishes.uid, storage if isinstance(storage, str) else "", known
            )
            phase = "new"
            self.is_new = True
        else:
            if known.fingerprint != origin.fingerprint:
                raise errors.TransferBusy(
                    f"A home of {record.name} is arriving from {known.host} already."
                )
            if self._storage not in ("", known.storage) and known.phase == RECEIVING:
                raise errors.TransferBusy(
                    f"The home of {record.name} is arriving with storage"
                    f" {known.storage or 'directory'}; `homemgr transfers forget` first."
                )
            state, phase = known, known.phase
            if self._is_from_file and known.phase == RECEIVING:
                # What came over a stream gives way to what is in the file.
                state = replace(known, is_from_file=True)
                await self._transfers.register.save("in", state)
        return {
            "phase": phase,
            "base_directory": self._services.config.base_directory,
            "stage_name": state.aside_name,
            "file_name": os.path.basename(state.image_path),
            "tree": state.tree,
            "ledger": self._ledger(state, origin),
            "storage": state.storage,
            "went_on": state.went_on,
            "uid": state.uid,
            "report": arrival.report(await arrival.notes(state, record, self._services.machine)),
        }

    async def _prepare(self, about: Message) -> Message:
        """The tree is complete: ``identity`` is the text of the record that arrived in it.

        ``tree`` says which one it is, ``digest`` (hex) is that of its files, ``seal`` (hex) what
        the origin signed when it had sent all. Gives ``identity``, the text to put in its place:
        signed by this machine, so that everything can be changed here. Raises AlteredContent,
        BadSignature.
        """
        state = self._state
        if state.phase not in (RECEIVING, PREPARED):
            raise errors.StreamError(f"The home of {state.user} is {state.phase} already.")
        given = about.get("identity")
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        record = parse_embedded(text.encode("utf-8", "surrogatepass"))
        if (record.name, record.realm) != (state.user, state.realm):
            raise errors.RecordMismatch(
                f"The home holds the record of {record.user_and_realm}, "
                f"expected {names.with_realm(state.user, state.realm)}."
            )
        self._belief.require_signer(record)
        # It may have changed since the introduction, and whoever signed it may have mistaken.
        validate(record, Purpose.REGISTER, self._services.machine)
        await accounts.require_free(record.on(self._services.machine).aliases)
        self._belief.require_seal(record, digest_of(about), about.get("seal"))
        record = changes.without_future(record, now_usec())
        signed = signature.signed_here(record, self._services.keyring)
        tree = str(about.get("tree", ""))
        # Who has sent it all has it: that it was elsewhere once is of no interest any more.
        settled = state.at(PREPARED, went_on="", is_used=False)
        prepared = replace(settled, record=dict(signed.data), tree=tree)
        await self._transfers.register.save("in", prepared)
        return {"identity": signed.embedded().pretty().decode()}

    async def _commit(self, about: Message) -> Message:
        """The data have their final name and the origin has let go: it is a home here.

        ``storage`` is how they lie there, ``binding`` what else is to be known of that.
        Gives uid, report, and the blob_directory where the worker puts the home's blobs.
        """
        state = self._state
        if state.phase not in (PREPARED, COMMITTED):
            raise errors.StreamError(f"The home of {state.user} was not prepared.")
        record = UserRecord(cast("JsonObject", dict(state.record)))
        home = self._transfers.manager.registry.by_name(state.user)
        binding = about.get("binding")
        if state.phase == PREPARED or home is None:
            home = await self._transfers.places.take_in(
                state,
                record,
                storage=str(about.get("storage", "directory")),
                binding=cast("JsonObject", binding if isinstance(binding, dict) else {}),
            )
            # Somebody may use it already.
            await self._transfers.register.save("in", self._state.at(COMMITTED))
            await self._transfers.choose_extensions(home, self._extensions)
        return {
            "uid": home.uid,
            "report": arrival.report(await arrival.notes(state, record, self._services.machine)),
            "blob_directory": self._services.store.blob_directory(state.user),
        }

    async def _undo(self, about: Message) -> Message:
        """Give the home back, unless somebody used it here: then HomeExists.

        ``tree`` is what has its name by now, if anything: PathExists if it is another one.

        Gives file_name and stage_name: the worker renames the one to the other (if it is
        there), and only then tells the origin, where the home becomes usable again.
        """
        state = self._state
        if state.went_on:
            raise errors.HomeMoved(
                f"Home area {state.user} went on to {state.went_on} from here: fetch it from there."
            )
        home = self._transfers.manager.registry.by_name(state.user)
        _require_same(state, str(about.get("tree", "")), home)
        # Also one that was listed, but the daemon ended before it noted that.
        is_listed = state.phase == PREPARED and home is not None and home.lease is None
        if home is not None and (state.phase == COMMITTED or is_listed):
            async with home.exclusively(Operation.UNREGISTER):
                if self._state.is_used or home.effective.good_authentication_counter:
                    raise _used_here(state)
                await self._transfers.register.save("in", state.at(GONE))
                await self._transfers.places.give_up(home)
        elif state.is_used and about.get("tree"):
            # Its record is gone, or does not count; the files are there, and are not as they came.
            raise _used_here(state)
        elif state.phase != GONE:
            await self._transfers.register.save("in", state.at(GONE))
        return {"file_name": os.path.basename(state.image_path), "stage_name": state.aside_name}

    async def _restart(self, _about: Message) -> Message:
        """What was given back comes again: name and uid are held again, if they still can be."""
        state, record = self._state, self._introduced
        assert record is not None
        if state.phase != GONE:
            raise errors.StreamError(f"The home of {state.user} is {state.phase} here.")
        self._transfers.places.release(state)
        uid = await self._uid_for(record, state.uid)
        await self._transfers.register.save("in", replace(state.at(RECEIVING), uid=uid))
        return {}

    # -- where and as whom -------------------------------------------------------------------

    @property
    def _state(self) -> TransferState:
        assert self._user is not None
        return self._transfers.register.state("in", self._user)

    def _ledger(self, state: TransferState, origin: Origin) -> str:
        is_secret = abilities_of(state.storage).has_key
        peer = origin.fingerprint[:16]
        return self._transfers.store.ledger("in", state.user, peer, is_secret=is_secret)

    def _kind(self, origin_storage: str) -> str:
        """How the home is to lie here: never less protected than there unless that was asked."""
        if self._storage or is_tree(origin_storage):
            return self._storage
        if origin_storage not in ABILITIES:
            raise errors.NotSupported(
                f"The home area has storage {origin_storage!r} there, which is not known here;"
                " say what it is to be with --storage=."
            )
        return origin_storage

    async def _new(
        self,
        record: UserRecord,
        origin: Origin,
        told: int | None,
        origin_storage: str,
        before: TransferState | None,
    ) -> TransferState:
        """A place, a name and a uid for a home that begins to arrive; all are held.

        ``before`` is what is known of one that came here and went on.
        """
        storage = self._kind(origin_storage)
        manager, config = self._transfers.manager, self._services.config
        names.check_new_name(record.name)
        moved = self._transfers.register.find("out", record.name)
        if moved is not None and moved.phase == LEAVING:
            # What is kept here may be all that there is of it: nothing takes its place.
            raise errors.TransferBusy(
                f"The home area of {record.name} is on its way to {moved.host}; first run the"
                " command that moves it again, to its end or with --undo."
            )
        home = manager.registry.by_name(record.name)
        if home is not None and (moved is None or home.lease is None):
            raise errors.UserNameExists(f"There is a home area of {record.name} here already.")
        effective = record.on(self._services.machine)
        if home is None:
            await accounts.require_free((record.name, *effective.aliases))
            uid = await self._uid_for(record, told or effective.uid)
        else:
            # It comes back: who has it here kept the uid for it.
            uid = home.uid
        file_name = names.image_file_name(record.name, record.realm, storage)
        prefix = ARRIVING_PREFIX if is_tree(storage) else ARRIVING_ROOM_PREFIX
        state = TransferState(
            user=record.name,
            realm=record.realm,
            phase=RECEIVING,
            fingerprint=origin.fingerprint,
            # As the caller calls it: under that name it is reached again.
            host=self._host or origin.host,
            machine_id=origin.machine_id,
            image_path=os.path.join(config.base_directory, file_name),
            aside_name=f"{prefix}{file_name}.{origin.fingerprint[:8]}",
            storage=storage,
            origin_storage=origin_storage,
            uid=uid,
            origin_uid=told or 0,
            is_from_file=self._is_from_file,
            went_on=before.went_on if before and before.fingerprint == origin.fingerprint else "",
        ).at(RECEIVING)
        if await asyncio.to_thread(os.path.lexists, state.image_path):
            self._transfers.places.release(state)
            raise errors.PathExists(f"{state.image_path} exists already; remove or adopt it.")
        try:
            await self._transfers.register.save("in", state)
        except errors.HomeError:
            self._transfers.places.release(state)
            raise
        return state

    async def _uid_for(self, record: UserRecord, wanted: int | None) -> int:
        """The uid the user had, if it is free here, else another; held under his name."""
        registry, user = self._transfers.manager.registry, record.name
        with registry.reserving_names(record.on(self._services.machine).lookup_names):
            if wanted is not None and uids.is_allowed(wanted):
                try:
                    uid = await registry.reserve_uid(user, wanted, None, accounts.id_taken)
                except errors.UIDInUse:
                    uid = await registry.reserve_uid(user, None, None, accounts.id_taken)
            else:
                uid = await registry.reserve_uid(user, None, None, accounts.id_taken)
        registry.hold(user, uid)
        return uid


def _require_same(state: TransferState, tree: str, home: Home | None) -> None:
    """Raise PathExists if something else than what arrived is the user's home by now."""
    is_elsewhere = home is not None and home.lease is None and home.image_path != state.image_path
    if is_elsewhere or (tree and tree != state.tree):
        raise errors.PathExists(
            f"The home area of {state.user} is another one by now than that which arrived from"
            f" {state.host}; nothing was done to it."
        )


def _used_here(state: TransferState) -> errors.HomeExists:
    return errors.HomeExists(f"Home area {state.user} has been used here; move it back instead.")
