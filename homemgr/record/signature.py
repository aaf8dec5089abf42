"""Signatures of user records: keys, signing, and the verdict over a record.

Knows ed25519 keys as PEM bytes; where keys are kept and who may add them is not
its business. Implements "Signature Section" of systemd.io/USER_RECORD and homed's
rules on whose signature allows what.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from homemgr.errors import BadSignature, InvalidArgs, NoPrivateKey, RecordSigned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord

#: File name of this machine's own public key.
LOCAL_KEY: Final = "local.public"
_SIGNATURE_BYTES: Final = 64


class Verdict(enum.Enum):
    """Whose signatures a record carries."""

    EXCLUSIVE = "exclusive"  # every one is ours
    OURS_AND_OTHERS = "ours_and_others"  # ours, and more
    FOREIGN = "foreign"  # none is ours, but one is of a key we accept
    UNSIGNED = "unsigned"  # there is none
    UNKNOWN = "unknown"  # none is of a key we accept

    @property
    def is_accepted(self) -> bool:
        """Whether a key of this machine vouches for the record."""
        return self in (Verdict.EXCLUSIVE, Verdict.OURS_AND_OTHERS, Verdict.FOREIGN)


class PublicKey:
    """One ed25519 public key."""

    __slots__ = ("_key", "raw")

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Wrap a loaded key; see :meth:`from_pem`."""
        self._key = key
        self.raw: Final = key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def from_pem(cls, pem: bytes, name: str = "The key") -> PublicKey:
        """Read SubjectPublicKeyInfo; raises InvalidArgs that names the key."""
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidArgs(f"{name} is no public key: expected PEM of ed25519.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidArgs(f"{name} is of another kind: expected an ed25519 public key.")
        return cls(key)

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo with final newline."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the 32 bytes of the key, in hex: for people to compare."""
        return hashlib.sha256(self.raw).hexdigest()

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Whether this key made the signature over the text."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        """Keys are equal if their 32 bytes are."""
        return isinstance(other, PublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        """Fit for sets, as equality is by value."""
        return hash(self.raw)

    def __repr__(self) -> str:
        """Show the begin of the fingerprint."""
        return f"<PublicKey {self.fingerprint[:16]}>"


class PrivateKey:
    """One ed25519 private key; never shows itself."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Wrap a loaded key; see :meth:`from_pem` and :meth:`generate`."""
        self._key = key
        self.public: Final = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, name: str = "The key") -> PrivateKey:
        """Read PKCS#8 without passphrase; raises InvalidArgs that names the key."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise InvalidArgs(
                f"{name} is no private key: expected PEM of ed25519 without passphrase."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidArgs(f"{name} is of another kind: expected an ed25519 private key.")
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS#8 without passphrase, for the key file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, text: bytes) -> bytes:
        """The 64 bytes of the signature over the text itself."""
        return self._key.sign(text)

    def __repr__(self) -> str:
        """Show the public half's fingerprint only."""
        return f"<PrivateKey of {self.public!r}>"


def generate_key_pair() -> tuple[bytes, bytes]:
    """A new pair as PEM: private key, public key."""
    private = PrivateKey.generate()
    return private.to_pem(), private.public.pem.encode()


class Keyring:
    """The keys of one machine: accepted public keys by file name, maybe its own private key.

    Immutable; adding a key makes a new keyring.
    """

    __slots__ = ("local", "private", "public")

    def __init__(self, public: Mapping[str, PublicKey], private: PrivateKey | None = None) -> None:
        """Take keys by file name (``NAME.public``); ``local.public`` is the machine's own."""
        self.public: Final = dict(public)
        if private is not None:
            self.public.setdefault(LOCAL_KEY, private.public)
        self.private: Final = private
        self.local: Final = self.public.get(LOCAL_KEY)
        # Signing with a key that this machine then does not know as its own would lock its
        # users out at the next start.
        if private is not None and private.public != self.local:
            raise InvalidArgs(
                f"{LOCAL_KEY} does not belong to local.private: expected the key of "
                f"fingerprint {private.public.fingerprint}."
            )

    @classmethod
    def from_pem(cls, public: Mapping[str, bytes], private: bytes | None = None) -> Keyring:
        """Build from the contents of key files; raises InvalidArgs naming a bad one."""
        return cls(
            {name: PublicKey.from_pem(pem, name) for name, pem in public.items()},
            None if private is None else PrivateKey.from_pem(private, "local.private"),
        )

    def name_of(self, key: PublicKey) -> str | None:
        """The name under which a key is known already."""
        return next((name for name, known in self.public.items() if known == key), None)

    def with_key(self, name: str, key: PublicKey) -> Keyring:
        """A keyring with one more accepted key."""
        return Keyring({**self.public, name: key}, self.private)

    def without_key(self, name: str) -> Keyring:
        """A keyring without an accepted key."""
        return Keyring({n: k for n, k in self.public.items() if n != name}, self.private)


def sign(record: UserRecord, private_key: PrivateKey) -> UserRecord:
    """The record with one signature, ours, in place of all it had."""
    data = base64.b64encode(private_key.sign(record.canonical())).decode()
    entry: JsonObject = {"data": data, "key": private_key.public.pem}
    # homed keeps no older signatures either: only records that are ours alone get here.
    return record.replaced(signature=[entry])


def verdict(record: UserRecord, keyring: Keyring) -> Verdict:
    """Whose signatures the record carries, judged over all of them.

    The key a signature names is not looked at: every known key is tried.
    """
    entries = _entries(record)
    if not entries:
        return Verdict.UNSIGNED
    text = record.canonical()
    readable = [s for s in map(_signature_bytes, entries) if s is not None]
    if keyring.local is not None:
        ours = [keyring.local.verifies(s, text) for s in readable]
        # A signature that cannot be read is one of somebody else.
        if len(ours) == len(entries) and all(ours):
            return Verdict.EXCLUSIVE
        if any(ours):
            return Verdict.OURS_AND_OTHERS
    others = [key for key in keyring.public.values() if key != keyring.local]
    if any(key.verifies(s, text) for s in readable for key in others):
        return Verdict.FOREIGN
    return Verdict.UNKNOWN


def require_accepted(record: UserRecord, keyring: Keyring) -> Verdict:
    """The verdict over a record that must be signed; raises BadSignature."""
    judged = verdict(record, keyring)
    if judged is Verdict.UNSIGNED:
        raise BadSignature(f"The record of {record.user_and_realm} is not signed.")
    if not judged.is_accepted:
        raise BadSignature(
            f"The record of {record.user_and_realm} is not signed by a key this machine accepts."
        )
    return judged


def require_ours(record: UserRecord, keyring: Keyring) -> None:
    """Refuse a change made here to a record that others signed; raises RecordSigned."""
    if verdict(record, keyring) is not Verdict.EXCLUSIVE:
        raise RecordSigned(
            f"The record of {record.user_and_realm} is not signed by this machine alone "
            "and cannot be changed here."
        )


def accepted_or_signed(record: UserRecord, keyring: Keyring) -> UserRecord:
    """A given record, signed by us if it came unsigned; raises BadSignature, NoPrivateKey."""
    if verdict(record, keyring) is Verdict.UNSIGNED:
        return signed_here(record, keyring)
    require_accepted(record, keyring)
    return record


def signed_here(record: UserRecord, keyring: Keyring) -> UserRecord:
    """The record signed with this machine's key; raises NoPrivateKey."""
    if keyring.private is None:
        raise NoPrivateKey(f"No private key to sign the record of {record.user_and_realm} with.")
    return sign(record, keyring.private)


def _entries(record: UserRecord) -> list[Json]:
    entries = record.data.get("signature")
    return entries if isinstance(entries, list) else []


def _signature_bytes(entry: Json) -> bytes | None:
    """The signature an element holds; None if it holds none, so that no key verifies it."""
    data = entry.get("data") if isinstance(entry, dict) else None
    if not isinstance(data, str):
        return None
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _SIGNATURE_BYTES else None
