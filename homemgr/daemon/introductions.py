"""What a machine signs when a home leaves it: who sends it, to whom, and what was sent.

A signature is over some texts, each after its length u32, big endian: first what kind of
signature it is, in a version; then the receiver's nonce; then the receiver, so that nobody
can pass on what was meant for him; then for a content its digest; last the record in its
canonical form. A file has no receiver: who holds it may read it, and its nonce is its own.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, cast

from homemgr import errors
from homemgr.daemon.origins import Origin
from homemgr.record.model import UserRecord
from homemgr.record.signature import LOCAL_PRIVATE, PublicKey

if TYPE_CHECKING:
    from homemgr.daemon.home import Services
    from homemgr.job import Message
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.signature import Keyring, PrivateKey

#: The kinds: no signature can be used for another one, nor by another version.
_INTRODUCTION = b"homemgr-origin 2"
_CONTENT = b"homemgr-content 1"

#: The receiver of an export.
A_FILE = "file"

#: Machine id and fingerprint of the machine's key, if it has one.
_MACHINE = re.compile(r"([0-9A-Za-z]{1,64})/([0-9a-f]{64})?")

#: Shortest and longest nonce.
_NONCE_BYTES = (16, 64)
_DIGEST = re.compile(r"[0-9a-f]{64}")

_U32 = struct.Struct(">I")


def own_key(keyring: Keyring) -> PrivateKey | None:
    """The key that the machine is known by; None if it has none."""
    return keyring.private.get(LOCAL_PRIVATE) or keyring.signer


def receiver_of(services: Services) -> str:
    """This machine, as senders are told whom they send to."""
    key = own_key(services.keyring)
    return f"{services.machine.id}/{key.public.fingerprint if key else ''}"


def machine_of(receiver: str) -> str:
    """The machine id of a receiver; raises StreamError if it is none."""
    found = _MACHINE.fullmatch(receiver)
    if not found:
        raise errors.StreamError("The other machine did not say which one it is.")
    return found[1]


def nonce_of(about: Message) -> bytes:
    """What the receiving end made up, so that an introduction cannot be used twice."""
    try:
        nonce = bytes.fromhex(str(about.get("nonce", "")))
    except ValueError as error:
        raise errors.StreamError("The nonce of an introduction is no hexadecimal text.") from error
    if not _NONCE_BYTES[0] <= len(nonce) <= _NONCE_BYTES[1]:
        raise errors.StreamError("The nonce of an introduction has a wrong length.")
    return nonce


def digest_of(about: Message) -> str:
    """The digest of a content; raises StreamError if it is none."""
    digest = str(about.get("digest", ""))
    if not _DIGEST.fullmatch(digest):
        raise errors.StreamError("The digest of the home is none.")
    return digest


def introduction_text(nonce: bytes, receiver: str, record: UserRecord) -> bytes:
    """What is signed to introduce the sender of a home."""
    return _text(_INTRODUCTION, nonce, receiver.encode(), record.canonical())


def content_text(nonce: bytes, receiver: str, digest: str, record: UserRecord) -> bytes:
    """What is signed when all was sent: ``digest`` (hex) of the files, and the record."""
    return _text(_CONTENT, nonce, receiver.encode(), bytes.fromhex(digest), record.canonical())


def _text(*parts: bytes) -> bytes:
    return b"".join(_U32.pack(len(part)) + part for part in parts)


def verified(
    introduction: Message, nonce: bytes, receiver: str
) -> tuple[UserRecord, PublicKey, Origin]:
    """The record, and the origin that proved to hold its key just now.

    Raises WrongReceiver, BadSignature, and StreamError if it is no introduction.
    """
    data, told = introduction.get("record"), introduction.get("origin")
    if not isinstance(data, dict) or not isinstance(told, dict):
        raise errors.StreamError("The origin's introduction has no record or no origin.")
    meant = introduction.get("receiver")
    if meant != receiver:
        raise errors.WrongReceiver(
            f"The home was sent to {_shown(meant)}, this is {_shown(receiver)}."
        )
    record = UserRecord(cast("JsonObject", data)).embedded()
    try:
        key = PublicKey.from_pem(str(told.get("public_key", "")).encode(), "The origin's key")
        proof = bytes.fromhex(str(introduction.get("signature", "")))
    except (errors.InvalidArgs, ValueError) as error:
        raise errors.StreamError("The origin's introduction is malformed.") from error
    if not key.verifies(proof, introduction_text(nonce, receiver, record)):
        raise errors.BadSignature("The origin does not hold the key it introduced itself with.")
    host, machine_id = str(told.get("hostname", "")), str(told.get("machine_id", ""))
    return record, key, Origin(key.fingerprint, key.pem, host[:255], machine_id[:64])


def _shown(receiver: object) -> str:
    if receiver == A_FILE:
        return "a file"
    found = _MACHINE.fullmatch(receiver) if isinstance(receiver, str) else None
    return f"machine {found[1]}" if found else "nobody"
