"""A job's arguments as the objects the verbs work with. Valid for one process, one job."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, cast

from homemgr import crypt, errors, job
from homemgr.extension.image import NO_SHELF
from homemgr.kernel import memory
from homemgr.record import password, unasked
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.names import image_file_name
from homemgr.record.secret import Secret, normalise_recovery_key
from homemgr.record.signature import Keyring, require_accepted
from homemgr.record.storages import abilities_of
from homemgr.record.validate import parse_embedded
from homemgr.storage import mountpoint
from homemgr.storage.kind import Image, Words
from homemgr.storage.kinds import storage_named
from homemgr.work.tokens import TokenWords

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from homemgr.extension.shelf import Shelf
    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.storages import Abilities
    from homemgr.storage.kind import Area, Storage

#: Processor time for one check of a password. The slowest usual hashes take a tenth of it.
_CHECK_S = 3.0


class Task:
    """One request. What a verb does not need is never looked at."""

    def __init__(
        self,
        request: job.Request,
        fds: list[Fd],
        channel: job.Channel,
        shelf: Shelf = NO_SHELF,
    ) -> None:
        """Borrow the descriptors; the worker closes them."""
        self.shelf = shelf
        self.verb = request.verb
        self.fds = fds
        self.channel = channel
        self._arguments = request.arguments

    def argument(self, name: str) -> object:
        """A plain argument; None if the daemon did not send it."""
        return self._arguments.get(name)

    def text(self, name: str) -> str:
        """A text argument that must be there."""
        value = self._arguments.get(name)
        if not isinstance(value, str):
            raise job.ProtocolError(f"{self.verb}: argument {name} is no text")
        return value

    def object(self, name: str) -> JsonObject:
        """A JSON object that must be there."""
        value = self._arguments.get(name)
        if not isinstance(value, dict):
            raise job.ProtocolError(f"{self.verb}: argument {name} is no object")
        return cast("JsonObject", value)  # it came as JSON

    def texts(self, name: str) -> list[str]:
        """A list of texts that must be there."""
        value = self._arguments.get(name)
        if not isinstance(value, list):
            raise job.ProtocolError(f"{self.verb}: argument {name} is no list")
        return [str(item) for item in value]

    @cached_property
    def record(self) -> UserRecord:
        """The host copy; of an unfixated home, what little is known."""
        return UserRecord(self.object("record"))

    @property
    def is_fixated(self) -> bool:
        """False if the host copy is only a guess about an image found on disk."""
        return bool(self.argument("is_fixated"))

    @cached_property
    def machine(self) -> Machine:
        """The machine whose values count."""
        told = self.object("machine")
        hostname = told.get("hostname")
        return Machine(
            str(told["id"]), hostname if isinstance(hostname, str) else None, str(told["home_root"])
        )

    @property
    def effective(self) -> EffectiveRecord:
        """The host copy's values here."""
        return self.record.on(self.machine)

    @cached_property
    def secret(self) -> Secret:
        """The credentials the client gave."""
        return Secret.from_json(self.object("secret"))

    @cached_property
    def keyring(self) -> Keyring:
        """The public keys whose signatures count."""
        pems = self.object("public_keys")
        own = self.texts("own_keys")
        return Keyring.from_pem({name: str(pem).encode() for name, pem in pems.items()}, own=own)

    @property
    def image_path(self) -> str:
        """Where the files lie on disk: what the record says, or the place for new homes."""
        if self.effective.image_path:
            return self.effective.image_path
        # Of a new home the daemon says how it is stored.
        told = self.argument("storage")
        storage = told if isinstance(told, str) else self.effective.storage
        name = image_file_name(self.record.name, self.record.realm, storage)
        return os.path.join(self.text("base_directory"), name)

    @cached_property
    def storage(self) -> Storage:
        """How the files lie on disk; raises NotSupported for a storage this version lacks."""
        return storage_named(self.effective.storage or "directory")

    @property
    def abilities(self) -> Abilities:
        """What homes of that storage can do."""
        return abilities_of(self.effective.storage)

    @property
    def image(self) -> Image:
        """The home as its storage has to know it."""
        return Image(self.image_path, self.effective, self._judge)

    def _judge(self, identity: bytes | None) -> None:
        """Refuse an image whose header holds a record that is another's, or nobody's here.

        One that is lost counts like a lost copy inside: then the host copy has to be there.
        """
        if identity is None:
            if not self.is_fixated:
                raise errors.HomeAbsent(f"{self.image_path} holds no user record in its header.")
            return
        record = parse_embedded(identity)
        require_accepted(record, self.keyring)
        if not record.is_same_user(self.record):
            raise errors.RecordMismatch(
                f"{self.image_path} holds the record of {record.user_and_realm}, expected"
                f" {self.record.user_and_realm}."
            )

    def open_area(self) -> Area:
        """Open the home as it lies on disk, with the secret if that is needed.

        Raises HomeAbsent, HostileHome; BadPassword if it is needed and does not unlock it.
        """
        is_active = mountpoint.is_active(self.effective.home_directory)
        return self.storage.open(self.image, self.words(self.spellings()), is_active=is_active)

    def spellings(self) -> Iterator[str]:
        """Every word of the secret, and of tokens, that a key slot may know it by."""
        yield from self.token_words.words
        for word in self.secret.passwords:
            yield word
            recovery_key = normalise_recovery_key(word)
            if recovery_key not in (None, word):
                yield recovery_key

    def require_no_key(self) -> None:
        """Raise NotSupported for a home that cannot be read once its user has logged out."""
        if self.abilities.has_key:
            raise errors.NotSupported(
                f"Home area {self.record.name} has storage {self.effective.storage}: at rest nobody"
                " but its user can read it, so it cannot be sent or exported by this version."
            )

    def words(self, words: Iterable[str]) -> Words:
        """What may unlock the home, with this process's share of a processor."""
        return Words(tuple(words), self._working)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self.channel.processor(), _check_limited():
            yield

    @property
    def local_uid(self) -> int:
        """The uid the user has on this machine."""
        uid = self.effective.uid
        if uid is None:
            raise errors.HomeError(f"The record of {self.record.name} has no uid on this machine.")
        return uid

    def verify(self, word: str, hashed: str) -> bool:
        """Whether ``word`` is the password behind ``hashed``; takes a processor meanwhile."""
        with self.channel.processor(), _check_limited(), _memory_at_once():
            return crypt.verify(word, hashed)

    def hash_password(self, word: str) -> str:
        """A fresh hash; takes a processor meanwhile."""
        with self.channel.processor(), _memory_at_once():
            return crypt.hash_password(word, os.environ.get("SYSTEMD_CRYPT_PREFIX"))

    @cached_property
    def token_words(self) -> TokenWords:
        """What security tokens have said: words that unlock as passwords do."""
        return TokenWords(self.verify)

    def check_credentials(self, record: UserRecord) -> None:
        """Raise the credential failure unless the secret, or a token, unlocks ``record``.

        None is needed if that says so, which may be another one than the service knew.
        """
        effective = record.on(self.machine)
        now_usec = time.time_ns() // 1000
        if self.argument("without_secret") and unasked.is_allowed(effective, now_usec):
            return
        password.check(
            effective,
            self.secret,
            self.verify,
            lambda asked: self.token_words.unlock(asked, self.secret),
        )

    def complete(self, secret: Secret, record: UserRecord) -> Secret:
        """``secret`` with the words of all security tokens of ``record``; raises what they miss."""
        self.token_words.require_all(record.on(self.machine), secret)
        return secret.merged(Secret(self.token_words.words))


@contextmanager
def _check_limited() -> Iterator[None]:
    """Let this process be killed if a check takes too long: libcrypt cannot be interrupted.

    Users may choose their own hashes, and how expensive it is to check them: without
    a limit two of them could keep all processors from everybody else's logins.
    """
    signal.setitimer(signal.ITIMER_PROF, _CHECK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def _memory_at_once() -> Iterator[None]:
    """Have libcrypt's work area allocated in one go, and never written to swap.

    It has 16 MiB: four thousand page faults would take nearly half the time of a check.
    """
    with memory.locked_when_new() if memory.may_lock_all() else nullcontext():
        yield
