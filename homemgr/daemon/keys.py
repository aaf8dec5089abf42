"""The signing keys on disk: the machine's own pairs and the public keys it accepts.

Loads them with the rules of systemd-homed (root-owned, nobody else may write;
private keys readable by root alone), makes the own pair on first need, adds and
removes accepted keys while the service runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.record import signature
from homemgr.record.signature import (
    LOCAL_KEY,
    LOCAL_PRIVATE,
    PRIVATE_SUFFIX,
    PUBLIC_SUFFIX,
    Keyring,
    PrivateKey,
    PublicKey,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger(__name__)

_MAX_KEY_BYTES = 64 * 1024
#: Signers of refused records that are remembered, for an administrator to accept.
_MAX_SEEN = 64


class Keys:
    """The keyring of one daemon, and the directory where it keeps what is added to it."""

    def __init__(self, keyring: Keyring, state_directory: str) -> None:
        """Start with ``keyring``; added keys go to ``state_directory``."""
        self.keyring = keyring
        self._directory = state_directory
        self._lock = asyncio.Lock()
        self._seen: dict[str, PublicKey] = {}
        #: Called when other keys are accepted than before.
        self.changed: list[Callable[[], None]] = []

    async def add(self, name: str, pem: str) -> None:
        """Accept records signed by one more key from now on.

        Raises InvalidArgs for a name or text that is none, PathExists if the name or
        the key is known already.
        """
        _check_name(name)
        key = PublicKey.from_pem(pem.encode(), name)
        # One at a time: what was checked has to hold still when the thread has written the file.
        async with self._lock:
            if name in self.keyring.public:
                raise errors.PathExists(f"A signing key {name} is there already.")
            if (other := self.keyring.name_of(key)) is not None:
                raise errors.PathExists(f"The key is known already, as {other}.")
            await asyncio.to_thread(self._write, name, key.pem.encode())
            self._take(self.keyring.with_key(name, key))
        log.info("Records signed by key %s, fingerprint %s, are accepted.", name, key.fingerprint)

    async def remove(self, name: str) -> None:
        """Accept records signed by a key no longer; homes in use stay so.

        Raises NoSuchKey; InvalidArgs if the key is the machine's own or not kept here.
        """
        _check_name(name)
        async with self._lock:
            if name not in self.keyring.public:
                raise errors.NoSuchKey(f"No signing key {name} is known.")
            if name in self.keyring.own:
                raise errors.InvalidArgs(f"{name} belongs to a private key of this machine.")
            await asyncio.to_thread(self._delete, name)
            self._take(self.keyring.without_key(name))
        log.info("Records signed by key %s are not accepted any more.", name)

    def pem(self, name: str) -> str:
        """The text of an accepted key; raises NoSuchKey."""
        key = self.keyring.public.get(name)
        if key is None:
            raise errors.NoSuchKey(f"No signing key {name} is known.")
        return key.pem

    @contextmanager
    def noting_refusals(self) -> Iterator[None]:
        """Remember the signer of a record that is refused in the block."""
        try:
            yield
        except errors.BadSignature as refusal:
            self.note_refused(refusal)
            raise

    def note_refused(self, refusal: errors.BadSignature) -> None:
        """Remember who signed a record that was refused: he can be accepted by fingerprint."""
        if not refusal.public_key:
            return
        key = PublicKey.from_pem(refusal.public_key.encode())
        while len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[key.fingerprint] = key

    async def accept_seen(self, fingerprint: str) -> bool:
        """Accept the signer of a refused record; False if none of that fingerprint was seen."""
        key = self._seen.get(fingerprint)
        if key is None:
            return False
        if self.keyring.name_of(key) is None:
            await self.add(f"{fingerprint[:16]}{PUBLIC_SUFFIX}", key.pem)
        return True

    def _take(self, keyring: Keyring) -> None:
        self.keyring = keyring
        for listener in self.changed:
            listener()

    def _write(self, name: str, content: bytes) -> None:
        try:
            files.write_atomically(self._directory, name, content, 0o444)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the signing key {name}") from error

    def _delete(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._directory, name))
            with files.opened(self._directory) as directory:
                os.fsync(directory)
        except FileNotFoundError as error:
            raise errors.InvalidArgs(
                f"{name} is not in {self._directory}; remove it from where it was installed."
            ) from error
        except OSError as error:
            raise errors.from_os_error(error, f"Removing the signing key {name}") from error


def _check_name(name: str) -> None:
    """Raise InvalidArgs unless this is the name of a file for an accepted key."""
    is_plain = name.isprintable() and "/" not in name and not name.startswith(".")
    if not (is_plain and name.endswith(PUBLIC_SUFFIX) and len(os.fsencode(name)) <= 200):
        raise errors.InvalidArgs(
            f"name: {name!r} is no name for a key: expected a file name like HOST.public."
        )
    if name == LOCAL_KEY:
        raise errors.InvalidArgs(f"name: {LOCAL_KEY} is the machine's own key.")


def load(directories: Sequence[str], state_directory: str) -> Keys:
    """All keys of ``directories``; a pair is made in ``state_directory`` if there is none.

    A private key that exists but is not to be trusted is never replaced: homes
    signed with it would be lost to their users. Then the keyring has none. Of the
    further keys one that cannot be used is logged and left out.
    """
    found, seen = _read_all(directories)
    if LOCAL_PRIVATE not in seen:
        private, public = signature.generate_key_pair()
        _store_pair(state_directory, private, public)
        found[LOCAL_PRIVATE], found[LOCAL_KEY] = private, public
    return Keys(_keyring_of(found), state_directory)


def _keyring_of(found: dict[str, bytes]) -> Keyring:
    public: dict[str, PublicKey] = {}
    private: dict[str, PrivateKey] = {}
    for name, pem in found.items():
        try:
            if name.endswith(PUBLIC_SUFFIX):
                public[name] = PublicKey.from_pem(pem, name)
            else:
                private[name] = PrivateKey.from_pem(pem, name)
        except errors.InvalidArgs as error:
            if name in (LOCAL_KEY, LOCAL_PRIVATE):
                raise
            log.error("Ignoring a key: %s", error.message)
    for name, key in list(private.items()):
        half = public.get(signature.public_name(name), key.public)
        if name != LOCAL_PRIVATE and half != key.public:
            log.error("Ignoring key %s: the public key of that name is another's.", name)
            del private[name]
    return Keyring(public, private)


def _read_all(directories: Sequence[str]) -> tuple[dict[str, bytes], set[str]]:
    """Contents by file name, and all names seen: a file that is refused masks later ones too."""
    seen: set[str] = set()
    found: dict[str, bytes] = {}
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for name in names:
            # Dot names are files that were never finished.
            if name in seen or name.startswith("."):
                continue
            if not name.endswith((PUBLIC_SUFFIX, PRIVATE_SUFFIX)):
                continue
            seen.add(name)
            if (content := _read_key(directory, name)) is not None:
                found[name] = content
    return found, seen


def _read_key(directory: str, name: str) -> bytes | None:
    """The key file, or None (logged) if somebody other than root could have written or read it."""
    path = os.path.join(directory, name)
    try:
        status = os.stat(path)
        forbidden = 0o077 if name.endswith(PRIVATE_SUFFIX) else 0o022
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & forbidden:
            log.error(
                "Ignoring key %s: owner %d, mode %04o; expected owner 0 and none of %04o.",
                path,
                status.st_uid,
                stat.S_IMODE(status.st_mode),
                forbidden,
            )
            return None
        return files.read_bounded(directory, name, _MAX_KEY_BYTES)
    except OSError as error:
        log.error("Ignoring key %s: %s", path, error.strerror)
        return None


def _store_pair(directory: str, private: bytes, public: bytes) -> None:
    """Private first: a public key alone would look like somebody else's."""
    os.makedirs(directory, 0o755, exist_ok=True)
    files.write_atomically(directory, LOCAL_PRIVATE, private, 0o400)
    files.write_atomically(directory, LOCAL_KEY, public, 0o444)
    log.info("Made a new key pair to sign user records with in %s.", directory)
