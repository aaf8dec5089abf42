"""Detached signatures as PKCS#7 or CMS: RFC 2315, RFC 5652 section 5.

Pure. Reads who signed and over which bytes; whether the signature is good is judged
where the certificates are. Takes DER only, and of that what signing tools write.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from homemgr.extension import der

if TYPE_CHECKING:
    from homemgr.extension.der import Value

#: [1], constructed; [0], primitive: a key identifier instead of issuer and number.
_SECOND, _KEY_IDENTIFIER = 0xA1, 0x80

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")

#: Names of hashlib by object identifier.
_DIGESTS = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}


class Signer(NamedTuple):
    """One signature: the number of the signer's certificate, and what exactly was signed."""

    serial: int
    digest: str
    signed: bytes
    signature: bytes


def signers(message: bytes, content: bytes) -> list[Signer]:
    """Who signed ``content``; ValueError if that is no such signature, or one over other bytes."""
    kind, wrapped, *_ = der.parts(der.only(message, der.SEQUENCE), 2)
    if (kind.tag, kind.content, wrapped.tag) != (der.OBJECT, _SIGNED_DATA, der.FIRST):
        raise ValueError("it is no signature, but another kind of message")
    _version, _digests, inner, *rest = der.parts(der.only(wrapped.content, der.SEQUENCE), 4)
    if len(der.inside(inner)) != 1:
        raise ValueError("it is a signature over something of its own")
    # Certificates and revocations that come along are nobody's word for anything.
    infos = [value for value in rest if value.tag not in (der.FIRST, _SECOND)]
    if len(infos) != 1 or infos[0].tag != der.SET:
        raise ValueError("its list of signers is missing")
    return [_signer(info, content) for info in der.inside(infos[0])]


def _signer(info: Value, content: bytes) -> Signer:
    _version, who, algorithm, *rest = der.parts(info, 5)
    if who.tag == _KEY_IDENTIFIER:
        raise ValueError("its signer is not named by issuer and number")
    _issuer, serial, *_ = der.parts(who, 2)
    digest = _DIGESTS.get(der.parts(algorithm, 1)[0].content)
    if digest is None:
        raise ValueError("it was made with a digest other than SHA-256, SHA-384 and SHA-512")
    signed = content
    if rest and rest[0].tag == der.FIRST:
        attributes, *rest = rest
        if _message_digest(attributes) != hashlib.new(digest, content).digest():
            raise ValueError("it is a signature over something else")
        # What is signed then are the attributes, as the set that they are.
        signed = bytes([der.SET]) + attributes.whole[1:]
    if [v.tag for v in (serial, *rest[:2])] != [der.INTEGER, der.SEQUENCE, der.OCTETS]:
        raise ValueError("it is malformed")
    signature = rest[1].content
    return Signer(der.number(serial), digest, signed, signature)


def _message_digest(attributes: Value) -> bytes:
    for attribute in der.inside(attributes):
        kind, values, *_ = der.parts(attribute, 2)
        if kind.content == _MESSAGE_DIGEST:
            return der.parts(values, 1)[0].content
    raise ValueError("its attributes lack a digest")
