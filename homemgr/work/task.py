"""A job's arguments as the objects the verbs work with. Valid for one process, one job."""

from __future__ import annotations

import os
import time
from functools import cached_property
from typing import TYPE_CHECKING, cast

from homemgr import errors, job
from homemgr.extension.image import NO_SHELF
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
from homemgr.work.checking import CHECK_S, Checks
from homemgr.work.tokens import TokenWords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from homemgr.extension.shelf import Shelf
    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.storages import Abilities
    from homemgr.storage.kind import Area, Storage


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
        self._checks = Checks(channel)

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

    def take_words(self, words: Iterable[str]) -> None:
        """Have words in the secret that came by another way than the request."""
        self.secret = self.secret.merged(Secret(words))

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
        return Image(self.image_path, self.effective, self._judged)

    def _judged(self, identity: bytes | None) -> UserRecord | None:
        """Refuse an image whose header holds a record that is another's, or nobody's here.

        One that is lost counts like a lost copy inside: then the host copy has to be there.
        """
        if identity is None:
            if not self.is_fixated:
                raise errors.HomeAbsent(f"{self.image_path} holds no user record in its header.")
            return None
        record = parse_embedded(identity)
        require_accepted(record, self.keyring)
        if not record.is_same_user(self.record):
            raise errors.RecordMismatch(
                f"{self.image_path} holds the record of {record.user_and_realm}, expected"
                f" {self.record.user_and_realm}."
            )
        return record

    def open_area(
        self,
        before: Callable[[UserRecord | None], None] | None = None,
        *,
        is_copied: bool = False,
    ) -> Area:
        """Open the home as it lies on disk, with the secret if that is needed.

        ``before`` gets the record that can be read without mounting, if there is a place for
        one; what it raises keeps the home closed. Raises HomeAbsent, HostileHome;
        BadPassword if a key is needed and nothing unlocks it; of a home on a server all that
        `check_credentials` raises.
        """
        is_active = mountpoint.is_active(self.effective.home_directory)
        if self.abilities.is_remote and self.is_fixated and not is_active:
            # A server that was asked with too many guesses locks the account for all it is for.
            self.check_credentials(self.record)
        image = self.image._replace(is_copied=is_copied)
        if before is not None:
            image = image._replace(judge=lambda identity: before(self._judged(identity)))
        return self.storage.open(image, self.words(self.spellings()), is_active=is_active)

    def open_checked(self) -> Area:
        """Open the home to copy all of it: one in a file only for who proves that it is his.

        Nobody else but him has decided what file system is in there. Of a home with a key the
        key is that proof.
        """
        needs_proof = self.storage.image_is_file and not self.abilities.has_key

        def check(found: UserRecord | None) -> None:
            self.check_credentials(found or self.record)

        return self.open_area(check if needs_proof else None, is_copied=True)

    def spellings(self) -> Iterator[str]:
        """Every word of the secret, and of tokens, that a key slot may know it by."""
        yield from self.token_words.words
        for word in self.secret.passwords:
            recovery_key = normalise_recovery_key(word)
            # Nearly surely one; each spelling that is tried in vain takes its time.
            if recovery_key not in (None, word):
                yield recovery_key
            yield word

    def words(self, words: Iterable[str]) -> Words:
        """What may unlock the home, with this process's share of a processor."""
        given = tuple(words)
        random = (w for w in given if w in self.token_words.words or normalise_recovery_key(w) == w)
        # Of a home that is found or arrives there is no host copy to compare with.
        is_known = self.is_fixated and self.argument("record") is not None
        return Words(given, self._working, frozenset(random), self._fits if is_known else None)

    def _fits(self, word: str) -> bool:
        """Whether the host copy of the record has a hash of ``word``, or a token has said it."""
        if word in self.token_words.words:
            return True
        pairs = password.pairs(self.effective, Secret((word,)))
        return any(self.verify(*pair) for pair in pairs)

    def _working(
        self, seconds: float = CHECK_S, memory: int = 0, *, beside: bool = False
    ) -> AbstractContextManager[Callable[[str], bool]]:
        # What comes next is the check of the password, nearly always against the host copy. A
        # check that turns out to be of no use has cost nobody any time. Of a home that arrives
        # there is no host copy, and its words were checked before.
        is_checked = beside and self.argument("record") is not None
        expected = password.pairs(self.effective, self.secret) if is_checked else ()
        return self._checks.working(expected, seconds, memory)

    @property
    def local_uid(self) -> int:
        """The uid the user has on this machine."""
        uid = self.effective.uid
        if uid is None:
            raise errors.HomeError(f"The record of {self.record.name} has no uid on this machine.")
        return uid

    def verify(self, word: str, hashed: str) -> bool:
        """Whether ``word`` is the password behind ``hashed``; takes a processor meanwhile."""
        return self._checks.verify(word, hashed)

    def hash_password(self, word: str) -> str:
        """A fresh hash; takes a processor meanwhile."""
        return self._checks.hash_password(word, os.environ.get("SYSTEMD_CRYPT_PREFIX"))

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
