"""One home area as the daemon sees it: its record, its state, one job at a time.

Knows how operations exclude each other and how a record is kept; what the
operations do is in ``login`` and ``changes``. Mounts nothing itself.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import os
import time
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.callers import origin
from homemgr.daemon.freezing import Freezer
from homemgr.daemon.questions import Questions
from homemgr.daemon.references import References
from homemgr.daemon.states import Job, Operation, Resting, Way, admit, wire_name
from homemgr.job import KEEP_DAMAGED, ProtocolError
from homemgr.record.names import is_remote
from homemgr.record.signature import Keyring, Verdict, verdict
from homemgr.record.storages import abilities_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from homemgr.daemon.config import Config
    from homemgr.daemon.jobs import JobRunner, OnProgress, OnQuestion
    from homemgr.daemon.keys import Keys
    from homemgr.daemon.leases import Lease
    from homemgr.daemon.merging import Extensions
    from homemgr.daemon.reader import Reader
    from homemgr.daemon.store import Store
    from homemgr.job import Message
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord
    from homemgr.record.ratelimit import Window
    from homemgr.record.secret import Secret
    from homemgr.record.storages import Abilities

log = logging.getLogger(__name__)

#: Operations that wait for one home (systemd-homed's limit).
MAX_QUEUE = 100
#: All together of others than root: PAM asks as root, and must find room whoever else asks.
MAX_QUEUE_OF_OTHERS = 50
#: Counters and rate limits are saved this long after they changed, off the login path.
SAVE_DELAY_S = 0.5


def now_usec() -> int:
    """Microseconds since 1970, as in user records."""
    return time.time_ns() // 1000


async def _keep_nothing(_user: str) -> None:
    """Nothing else is kept of a home."""


@dataclass
class Services:
    """What every home of one daemon shares."""

    config: Config
    store: Store
    runner: JobRunner
    keys: Keys
    machine: Machine
    extensions: Extensions
    #: Whether something is mounted on this home directory; must not block.
    is_mounted: Callable[[str], bool]
    #: Whether homes are made for another machine, whose file systems are not those of this one.
    is_elsewhere: bool = False
    #: Holds programs still while their files are out of reach.
    freezer: Freezer = field(default_factory=lambda: Freezer(None))
    #: Called after a change that look-ups could have cached.
    changed: Callable[[Home], None] = field(default=lambda home: None)
    #: Keeps names from all homes but one while its record comes to have them.
    reserving_names: Callable[[Iterable[str], Home], AbstractContextManager[None]] = field(
        default=lambda names, home: nullcontext()
    )
    #: Called before a user's home is deleted; deletes what else is kept of it.
    removing: Callable[[str], Awaitable[None]] = field(default=_keep_nothing)
    #: Called before files of a user's home are changed while he is logged out.
    writing: Callable[[str], Awaitable[None]] = field(default=_keep_nothing)
    #: Hashes of the passwords that unlock what else is kept of a user's home.
    former_hashes: Callable[[str], Iterable[str]] = field(default=lambda user: ())
    #: Called when a home has come into use.
    activated: Callable[[Home], None] = field(default=lambda home: None)
    #: Called when a home ceased to exist.
    vanished: Callable[[Home], None] = field(default=lambda home: None)

    @property
    def keyring(self) -> Keyring:
        """The signing keys of now."""
        return self.keys.keyring


class Home:
    """A home area known to this daemon; lives as long as it is listed.

    ``record`` is the host copy with binding and status. An unfixated home has a
    synthetic record, which is never stored.
    """

    def __init__(self, services: Services, record: UserRecord, *, is_fixated: bool) -> None:
        """Know the home area of ``record``; nothing is touched on disk."""
        self.services = services
        self.name = record.name
        self.is_fixated = is_fixated
        #: False once removed: queued operations then answer NoSuchHome.
        self.is_known = True
        self.is_present = True
        self.is_mounted = False
        #: Deactivates the home after its last reference disappeared; None while in use.
        self.ending: asyncio.Task[None] | None = None
        #: True after an attempt to deactivate failed and until the home is used again.
        self.is_lingering = False
        self.references = References(
            services.config.reference_directory, record.name, self._references_gone
        )
        #: True while the key of a mounted home is out of memory.
        self.is_locked = False
        #: Closes what a worker that died, or somebody's open files, left open; None if nothing.
        self.settling: asyncio.Task[None] | None = None
        #: What to do when the last reference disappeared; set by the registry.
        self.on_abandoned: Callable[[Home], None] = lambda home: None
        #: What to do when a worker died at work on this home; set by the registry.
        self.on_worker_died: Callable[[Home], None] = lambda home: None
        #: Status members about its size, as last measured.
        self.figures: JsonObject = {}
        #: Of others than root, by uid: how often they have tried; see `attempts`.
        self.others_attempts: dict[int, Window] = {}
        #: What a transfer keeps from happening to this home; None while there is none.
        self.lease: Lease | None = None
        #: What is asked about it beside all that holds it.
        self.questions = Questions()
        #: Who reads this home through its use just now, if anybody does.
        self.reader: Reader | None = None
        self._record = record
        self._verdict: Verdict | None = None
        #: What the verdict was found with: other keys, another verdict.
        self._judged_with: Keyring | None = None
        self._lock = asyncio.Lock()
        #: True while the lock is held by an attempt that no client asked for.
        self._is_background = False
        #: What who has it exclusively was asked for last.
        self._doing = ""
        #: Set when somebody waits for what holds the home, if that wants to know.
        self._called_off: asyncio.Event | None = None
        self._waiting = 0
        self._job: Job | None = None
        self._for_acquire = False
        self._saving: asyncio.Task[None] | None = None
        #: Writes of one host copy never overlap, or an older one could come out on top.
        self._save_lock = asyncio.Lock()

    # -- what it is ---------------------------------------------------------------

    @property
    def record(self) -> UserRecord:
        """The host copy of the user record."""
        return self._record

    @property
    def effective(self) -> EffectiveRecord:
        """The record's values on this machine."""
        return self._record.on(self.services.machine)

    @property
    def abilities(self) -> Abilities:
        """What homes of its storage can do."""
        return abilities_of(self.effective.storage)

    @property
    def uid(self) -> int:
        """The local uid; every home has one from its registration on."""
        uid = self.effective.uid
        assert uid is not None
        return uid

    @property
    def image_path(self) -> str:
        """Where the files lie on disk; empty if the record does not say yet."""
        return self.effective.image_path or ""

    @property
    def verdict(self) -> Verdict:
        """Who signed the record."""
        keyring = self.services.keyring
        if self._verdict is None or self._judged_with is not keyring:
            self._verdict, self._judged_with = verdict(self._record, keyring), keyring
        return self._verdict

    @property
    def resting(self) -> Resting:
        """The state, leaving aside a running job."""
        if self.is_mounted and self.is_locked:
            return Resting.LOCKED
        if self.is_mounted:
            return Resting.LINGERING if self.is_lingering else Resting.ACTIVE
        if not self.is_fixated:
            return Resting.UNFIXATED
        return Resting.INACTIVE if self.is_present else Resting.ABSENT

    @property
    def state(self) -> str:
        """The state's name on the wire."""
        return wire_name(self.resting, self._job, for_acquire=self._for_acquire)

    @property
    def is_active(self) -> bool:
        """True if the user's files are there to be used."""
        return self.is_mounted and self._job is not Job.ACTIVATE

    @property
    def job(self) -> Job | None:
        """The operation that runs now."""
        return self._job

    @property
    def is_held(self) -> bool:
        """Whether somebody has it exclusively."""
        return self._lock.locked()

    @property
    def is_yielding(self) -> bool:
        """Whether somebody has it who ends as soon as another one wants it."""
        return self._called_off is not None

    def observe(self) -> None:
        """Look again whether the home directory is mounted, for instance after a restart."""
        if self._job is None:
            mounted = self.services.is_mounted(self.effective.home_directory)
            if mounted != self.is_mounted:
                self.is_mounted = mounted
                self.is_locked = False
                self.services.changed(self)

    def note_locked(self, *, is_locked: bool) -> None:
        """Take note of whether the key of the mounted home is out of memory."""
        if is_locked != self.is_locked:
            self.is_locked = is_locked
            self.services.changed(self)

    # -- one operation at a time ------------------------------------------------------

    @asynccontextmanager
    async def exclusively(
        self,
        operation: Operation,
        *,
        queued: bool = False,
        background: bool = False,
        called_off: asyncio.Event | None = None,
    ) -> AsyncIterator[Way]:
        """Hold this home for one operation and say how the state admits it.

        Raises HomeBusy while another runs, unless ``queued``: then waits its turn.
        An attempt in the ``background`` makes nobody else fail: they wait for it. One that
        keeps nobody waiting ends when it is ``called_off``, which is set for whoever comes.
        """
        self.check_lease(operation)
        if not queued and self._lock.locked() and not self._is_background:
            raise errors.HomeBusy(
                f"Cannot {operation.value} home area {self.name}: an earlier request, to"
                f" {self._doing} it, is not done yet."
            )
        most = MAX_QUEUE_OF_OTHERS if origin.get() else MAX_QUEUE
        if self._waiting >= most:
            raise errors.TooManyOperations(
                f"{self._waiting} operations wait for home area {self.name}."
            )
        self.call_off()
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        self._is_background, self._called_off = background, called_off
        self._doing = operation.value
        self.call_off(unless_alone=True)
        try:
            self._require_known()
            # Again: a transfer may have ended while we waited.
            self.check_lease(operation)
            self.observe()
            yield admit(operation, self.resting, self.name)
        finally:
            self._is_background, self._called_off = False, None
            self._lock.release()

    def step_back(self, called_off: asyncio.Event) -> None:
        """Whoever has the home now keeps nobody waiting from here on: see `exclusively`.

        To all others it is as if his job was done.
        """
        self._is_background, self._called_off, self._job = True, called_off, None
        self.call_off(unless_alone=True)
        self.observe()
        self.services.changed(self)

    def call_off(self, *, unless_alone: bool = False) -> None:
        """Have what nobody waits for end; ``unless_alone``: if somebody waits behind it."""
        if self._called_off is not None and (self._waiting or not unless_alone):
            self._called_off.set()

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[bool]:
        """Keep operations waiting for the length of the block; False if one runs already."""
        if self._lock.locked():
            yield False
            return
        async with self._lock:
            self._is_background = True
            try:
                # Somebody may have been before us in the queue, and removed it.
                yield self.is_known
            finally:
                self._is_background = False

    def _require_known(self) -> None:
        if not self.is_known:
            raise errors.NoSuchHome(f"Home area {self.name} has just been removed.")

    def check_lease(self, operation: Operation) -> None:
        """Raise HomeMoved or TransferBusy if a transfer keeps ``operation`` from happening."""
        if self.lease is not None:
            self.lease.check(operation)

    async def work(
        self,
        job: Job,
        secret: Secret,
        *,
        for_acquire: bool = False,
        fds: tuple[int, ...] = (),
        on_progress: OnProgress | None = None,
        on_question: OnQuestion | None = None,
        cancelled: asyncio.Event | None = None,
        **arguments: object,
    ) -> dict[str, object]:
        """Run a worker's job on this home; the caller holds it exclusively.

        Callbacks as in ``JobRunner.run``, everything else goes to the worker.
        """
        self._job, self._for_acquire = job, for_acquire
        self.services.changed(self)
        try:
            request = {**self.job_arguments(secret), **arguments}
            if not self.is_fixated:
                request |= await asyncio.to_thread(self._lost_copy)
            return await self.services.runner.run(
                job.name.lower(),
                request,
                fds,
                about=self.name,
                on_progress=on_progress,
                on_question=on_question or self.answer,
                cancelled=cancelled,
            )
        except errors.BadSignature as error:
            self.services.keys.note_refused(error)
            raise
        except errors.WorkerDied:
            self.on_worker_died(self)
            raise
        finally:
            self._job, self._for_acquire = None, False
            # Not what the worker said counts: it may have died after it had mounted.
            self.observe()
            self.services.changed(self)

    async def answer(self, question: str, about: Message) -> Message:
        """Answer a worker that replaces the record in the home: what lies there is kept first."""
        if question != KEEP_DAMAGED:
            raise ProtocolError(f"nobody answers {question}")
        text = base64.b64decode(str(about["text"]))
        path = await asyncio.to_thread(self.services.store.keep_inside_copy, self.name, text)
        log.warning(
            "The record in home area %s is replaced by the host copy, and kept as %s.",
            self.name,
            path,
        )
        return {}

    def job_arguments(self, secret: Secret) -> dict[str, object]:
        """What every job is told."""
        services = self.services
        return {
            "record": self._record.for_host().data,
            "is_fixated": self.is_fixated,
            "secret": secret.to_json(),
            "machine": dataclasses.asdict(services.machine),
            "public_keys": {n: k.pem for n, k in services.keyring.public.items()},
            "own_keys": list(services.keyring.own),
            "base_directory": services.config.base_directory,
            "blob_root": services.config.blob_root,
            "lock_file": services.config.lock_file,
        }

    def _lost_copy(self) -> dict[str, object]:
        """What is known of the host copy that there was; blocks."""
        stamps = self.services.store.stamps
        kept = stamps.read(self.name)
        return {
            "least_change_usec": kept.stamp,
            "kept_record": kept.record.data if kept.record else None,
            "stamp_file": stamps.path_of(self.name),
        }

    # -- the record ----------------------------------------------------------------------

    def replace_record(self, record: UserRecord) -> None:
        """Take ``record`` as the host copy from now on, in memory."""
        self._record = record
        self._verdict = None
        self.services.changed(self)

    async def store_record(self, record: UserRecord) -> None:
        """Take ``record`` as the host copy and have it on disk when this returns."""
        store = self.services.store
        async with self._save_lock:
            self._require_known()
            if not self.is_fixated:
                await asyncio.to_thread(store.keep_aside, self.name)
            await asyncio.to_thread(store.save, self.name, record.for_host())
            self.replace_record(record)

    def update_status(self, members: JsonObject) -> None:
        """Change counters kept in the record; they reach the disk a moment later."""
        verdict = self._verdict
        self.replace_record(self._record.with_status(self.services.machine.id, members))
        # Status is not signed, and verifying again would be most of a login's time here.
        self._verdict = verdict
        if self.is_fixated and self._saving is None:
            self._saving = asyncio.create_task(self._save_soon())

    async def flush(self) -> None:
        """Have pending counters on disk when this returns."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
            await self._save()

    async def _save_soon(self) -> None:
        await asyncio.sleep(SAVE_DELAY_S)
        self._saving = None
        await self._save()

    async def drop_record(self, *, aside: bool = False) -> str | None:
        """Delete the host copy; from then on the home is unknown, and nothing is saved.

        With ``aside`` it is kept where nobody looks for users; gives that file's name.
        """
        store = self.services.store
        # A save that waits its turn meanwhile would bring the record back.
        async with self._save_lock:
            kept = await asyncio.to_thread(store.set_aside, self.name) if aside else None
            await asyncio.to_thread(store.delete, self.name)
            self.forget()
        return kept

    async def withdraw_record(self) -> None:
        """Delete the host copy of a home that has moved away, and keep it known; see `lease`."""
        async with self._save_lock:
            await asyncio.to_thread(self.services.store.delete_record, self.name)

    async def _save(self) -> None:
        try:
            async with self._save_lock:
                has_moved = self.lease is not None and self.lease.has_moved
                if has_moved or not (self.is_known and self.is_fixated):
                    return
                record = self._record.for_host()
                await asyncio.to_thread(self.services.store.save, self.name, record)
        except errors.HomeError as error:
            # Counters only: what identifies the user is saved by store_record, which raises.
            log.warning("%s", error)

    # -- end of use --------------------------------------------------------------------------

    def keep(self) -> None:
        """Call off the deactivation to come: the home is in use again, or gone."""
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None
        if self.is_lingering:
            self.is_lingering = False
            self.services.changed(self)

    def forget(self) -> None:
        """Cease to exist for clients."""
        self.is_known = False
        self.keep()
        self.references.close()
        self.references.forget()
        self.services.vanished(self)

    def close(self) -> None:
        """Stop watching, at the daemon's end; the home stays as it is."""
        self.keep()
        if self.settling is not None:
            self.settling.cancel()
        self.references.close()

    def _references_gone(self) -> None:
        self.on_abandoned(self)


def image_is_there(path: str) -> bool:
    """Whether the image exists, as far as one can see; blocks, so only for threads."""
    return is_remote(path) or os.path.lexists(path)
