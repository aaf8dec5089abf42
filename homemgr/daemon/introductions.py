"""What a machine signs when a home leaves it: who sends it, to whom, and what was sent.

A signature is over some texts, each after its length u32, big endian: first what kind of
signature it is, in a version; then the receiver's nonce; then the receiver, so that nobody
can pass on what was meant for him; then for a content its digest; last the record in its
canonical form, and in an introduction `Wishes` as JSON. A file has no receiver: who holds it may
read it, and its nonce is its own.

All that decides something at the receiving end is signed, since the stream goes through the hands
of the user, and a file lies about: also the uid, although that is but a wish which gives way to
whoever has it there, as files of somebody who is gone may still belong to it. Not signed are the
names that the origin gives itself, which are only shown; sizes and needs, which are found out to be
wrong; and the kind of storage, which whoever has the home received may choose anyway.
"""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING, NamedTuple, cast

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
_INTRODUCTION = b"homemgr-origin 3"
_CONTENT = b"homemgr-content 1"

#: The receiver of an export.
A_FILE = "file"

#: Machine id and fingerprint of the machine's key, if it has one.
_MACHINE = re.compile(r"([0-9A-Za-z]{1,64})/([0-9a-f]{64})?")

#: What a machine may be called, see hostname(7). Nobody has signed it, and it is shown beside
#: fingerprints and digests: none of them is a label, which has at most 63 characters.
_HOSTNAME = re.compile(r"(?!.{254})[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*")
_MACHINE_ID = re.compile(r"[0-9A-Za-z]{1,64}")

#: Shortest and longest nonce.
_NONCE_BYTES = (16, 64)
_DIGEST = re.compile(r"[0-9a-f]{64}")

_U32 = struct.Struct(">I")


class Wishes(NamedTuple):
    """What an origin would like its user to have at the receiving end, where that is possible."""

    uid: int | None
    #: His own extensions, by name.
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, introduction: Message) -> Wishes:
        """Those of an introduction; what is none is left out."""
        uid, names = introduction.get("uid"), introduction.get("extensions")
        texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        return cls(uid if type(uid) is int else None, tuple(texts))

    def text(self) -> bytes:
        """As it is signed: a JSON list of ASCII without blanks."""
        return json.dumps([self.uid, self.extensions], separators=(",", ":")).encode("ascii")


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


def introduction_text(nonce: bytes, receiver: str, record: UserRecord, wishes: Wishes) -> bytes:
    """What is signed to introduce the sender of a home."""
    return _text(_INTRODUCTION, nonce, receiver.encode(), record.canonical(), wishes.text())


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
    text = introduction_text(nonce, receiver, record, Wishes.of(introduction))
    if not key.verifies(proof, text):
        raise errors.BadSignature(
            "The origin does not hold the key it introduced itself with, or somebody changed what"
            " it said."
        )
    host = _plain(told.get("hostname"), _HOSTNAME)
    machine_id = _plain(told.get("machine_id"), _MACHINE_ID)
    return record, key, Origin(key.fingerprint, key.pem, host, machine_id)


def _plain(told: object, expected: re.Pattern[str]) -> str:
    """What was told if it is as it should be, else nothing."""
    return told if isinstance(told, str) and expected.fullmatch(told) else ""


def _shown(receiver: object) -> str:
    if receiver == A_FILE:
        return "a file"
    found = _MACHINE.fullmatch(receiver) if isinstance(receiver, str) else None
    return f"machine {found[1]}" if found else "nobody"
