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
from functools import lru_cache
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
    from collections.abc import Iterable, Mapping

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord

#: File names of this machine's own pair.
LOCAL_KEY: Final = "local.public"
LOCAL_PRIVATE: Final = "local.private"
PUBLIC_SUFFIX: Final = ".public"
PRIVATE_SUFFIX: Final = ".private"
_SIGNATURE_BYTES: Final = 64

#: Of a public key as PEM, with room for a remark before it; others are read anew each time.
_USUAL_PEM_BYTES: Final = 512
#: A machine knows few keys, and the same ones come with every record and every job.
_KEPT_KEYS: Final = 64


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
            key = (_load if len(pem) <= _USUAL_PEM_BYTES else load_pem_public_key)(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidArgs(f"{name} is no public key: expected PEM of ed25519.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidArgs(f"{name} is of another kind: expected an ed25519 public key.")
        return cls(key)

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo with final newline."""
        return _pem_of(self.raw)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER form (SubjectPublicKeyInfo) in hex: for people to compare.

        ``openssl pkey -pubin -in NAME.public -outform DER | sha256sum`` gives the same.
        """
        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

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


_load = lru_cache(_KEPT_KEYS)(load_pem_public_key)


@lru_cache(_KEPT_KEYS)
def _pem_of(raw: bytes) -> str:
    key = Ed25519PublicKey.from_public_bytes(raw)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


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
    """The keys of one machine by file name: accepted public ones, and its own private ones.

    A signature counts as the machine's own if one of its private keys made it, or the
    private half of ``local.public``. Immutable; adding a key makes a new keyring.
    """

    __slots__ = ("_own", "private", "public")

    def __init__(
        self,
        public: Mapping[str, PublicKey],
        private: Mapping[str, PrivateKey] | None = None,
        *,
        own: Iterable[str] = (),
    ) -> None:
        """Take keys by file name: ``NAME.public``, ``NAME.private``.

        ``own`` names public keys that count as the machine's own where the private ones
        are not at hand. Raises InvalidArgs if two halves of one name do not belong together.
        """
        self.public: Final = dict(public)
        #: ``local.private`` first: it signs what nobody has signed yet.
        self.private: Final = dict(sorted((private or {}).items(), key=_local_first))
        names = {LOCAL_KEY, *own}
        for name, key in self.private.items():
            half = public_name(name)
            names.add(half)
            # Signing with a key that this machine then does not know as its own would
            # lock its users out at the next start.
            if self.public.setdefault(half, key.public) != key.public:
                raise InvalidArgs(
                    f"{half} does not belong to {name}: expected the key of "
                    f"fingerprint {key.public.fingerprint}."
                )
        self._own: Final = {n: k for n, k in self.public.items() if n in names}

    @classmethod
    def from_pem(
        cls,
        public: Mapping[str, bytes],
        private: Mapping[str, bytes] | None = None,
        *,
        own: Iterable[str] = (),
    ) -> Keyring:
        """Build from the contents of key files; raises InvalidArgs naming a bad one."""
        return cls(
            {name: PublicKey.from_pem(pem, name) for name, pem in public.items()},
            {name: PrivateKey.from_pem(pem, name) for name, pem in (private or {}).items()},
            own=own,
        )

    @property
    def own(self) -> Mapping[str, PublicKey]:
        """The public keys whose signatures count as the machine's own."""
        return self._own

    @property
    def signer(self) -> PrivateKey | None:
        """The key for what nobody has signed yet, ``local.private`` if there is one."""
        return next(iter(self.private.values()), None)

    def signer_like(self, record: UserRecord) -> PrivateKey | None:
        """The key that signed ``record``, else the one for what nobody has signed."""
        text = record.canonical()
        made = [s for s in map(_signature_bytes, _entries(record)) if s is not None]
        for key in self.private.values():
            if any(key.public.verifies(s, text) for s in made):
                return key
        return self.signer

    def name_of(self, key: PublicKey) -> str | None:
        """The name under which a key is known already."""
        return next((name for name, known in self.public.items() if known == key), None)

    def with_key(self, name: str, key: PublicKey) -> Keyring:
        """A keyring with one more accepted key."""
        return Keyring({**self.public, name: key}, self.private, own=self._own)

    def without_key(self, name: str) -> Keyring:
        """A keyring without an accepted key."""
        public = {n: k for n, k in self.public.items() if n != name}
        return Keyring(public, self.private, own=self._own)


def public_name(private_name: str) -> str:
    """The file name of the public half of a private key."""
    return private_name.removesuffix(PRIVATE_SUFFIX) + PUBLIC_SUFFIX


def _local_first(item: tuple[str, PrivateKey]) -> tuple[bool, str]:
    return item[0] != LOCAL_PRIVATE, item[0]


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
    own = set(keyring.own.values())
    ours = [any(key.verifies(s, text) for key in own) for s in readable]
    # A signature that cannot be read is one of somebody else.
    if len(ours) == len(entries) and all(ours):
        return Verdict.EXCLUSIVE
    if any(ours):
        return Verdict.OURS_AND_OTHERS
    others = set(keyring.public.values()) - own
    if any(key.verifies(s, text) for s in readable for key in others):
        return Verdict.FOREIGN
    return Verdict.UNKNOWN


def require_accepted(record: UserRecord, keyring: Keyring) -> Verdict:
    """The verdict over a record that must be signed; raises BadSignature."""
    judged = verdict(record, keyring)
    if judged is Verdict.UNSIGNED:
        raise BadSignature(f"The record of {record.user_and_realm} is not signed.")
    if not judged.is_accepted:
        raise unknown_signer(record)
    return judged


def unknown_signer(record: UserRecord) -> BadSignature:
    """The failure for a record that no known key verifies: whose it is, if it says so truly."""
    text = f"The record of {record.user_and_realm} is not signed by a key this machine accepts"
    key = named_signer(record)
    if key is None:
        return BadSignature(f"{text}; it is damaged, or its signature names no key.")
    error = BadSignature(
        f"{text}, but by the one of fingerprint {key.fingerprint}. If that is whom you expect, "
        f"accept it with: homemgr origins trust {key.fingerprint}"
    )
    error.public_key = key.pem
    return error


def named_signer(record: UserRecord) -> PublicKey | None:
    """The key a signature names and that indeed made it; says nothing about whose it is."""
    text = record.canonical()
    for entry in _entries(record):
        made, pem = _signature_bytes(entry), entry.get("key") if isinstance(entry, dict) else None
        if made is None or not isinstance(pem, str):
            continue
        try:
            key = PublicKey.from_pem(pem.encode("utf-8", "surrogatepass"))
        except InvalidArgs:
            continue
        if key.verifies(made, text):
            return key
    return None


def require_ours(record: UserRecord, keyring: Keyring) -> None:
    """Refuse a change made here to a record that others signed; raises RecordSigned."""
    if verdict(record, keyring) is not Verdict.EXCLUSIVE:
        raise RecordSigned(
            f"The record of {record.user_and_realm} is not signed by this machine alone "
            "and cannot be changed here."
        )


def accepted_or_signed(
    record: UserRecord, keyring: Keyring, *, like: UserRecord | None = None
) -> UserRecord:
    """A given record, signed by us if it came unsigned; raises BadSignature, NoPrivateKey."""
    if verdict(record, keyring) is Verdict.UNSIGNED:
        return signed_here(record, keyring, like=like)
    require_accepted(record, keyring)
    return record


def signed_here(
    record: UserRecord, keyring: Keyring, *, like: UserRecord | None = None
) -> UserRecord:
    """The record signed by this machine, with the key that signed ``like``.

    Raises NoPrivateKey.
    """
    key = keyring.signer if like is None else keyring.signer_like(like)
    if key is None:
        raise NoPrivateKey(f"No private key to sign the record of {record.user_and_realm} with.")
    return sign(record, key)


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
