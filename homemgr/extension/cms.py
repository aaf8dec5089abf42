"""Detached signatures as PKCS#7 or CMS: RFC 2315, RFC 5652 section 5; DER: X.690.

Pure. Reads who signed and over which bytes; whether the signature is good is judged
where the certificates are. Takes DER only, and of that what signing tools write.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

_INTEGER, _OCTETS, _OBJECT, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
#: [0] and [1], constructed; [0] primitive: a key identifier instead of issuer and number.
_FIRST, _SECOND, _KEY_IDENTIFIER = 0xA0, 0xA1, 0x80

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")

#: Names of hashlib by object identifier.
_DIGESTS = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}

#: Longer ones nobody needs for a hash: a certificate chain and a signature.
LIMIT = 1 << 16


class Signer(NamedTuple):
    """One signature: the number of the signer's certificate, and what exactly was signed."""

    serial: int
    digest: str
    signed: bytes
    signature: bytes


class _Value(NamedTuple):
    tag: int
    content: bytes
    #: With tag and length.
    whole: bytes


def signers(der: bytes, content: bytes) -> list[Signer]:
    """Who signed ``content``; ValueError if that is no such signature, or one over other bytes."""
    kind, wrapped, *_ = _parts(_only(der, _SEQUENCE), 2)
    if (kind.tag, kind.content, wrapped.tag) != (_OBJECT, _SIGNED_DATA, _FIRST):
        raise ValueError("it is no signature, but another kind of message")
    _version, _digests, inner, *rest = _parts(_only(wrapped.content, _SEQUENCE), 4)
    if len(_inside(inner)) != 1:
        raise ValueError("it is a signature over something of its own")
    # Certificates and revocations that come along are nobody's word for anything.
    infos = [value for value in rest if value.tag not in (_FIRST, _SECOND)]
    if len(infos) != 1 or infos[0].tag != _SET:
        raise ValueError("its list of signers is missing")
    return [_signer(info, content) for info in _inside(infos[0])]


def _signer(info: _Value, content: bytes) -> Signer:
    _version, who, algorithm, *rest = _parts(info, 5)
    if who.tag == _KEY_IDENTIFIER:
        raise ValueError("its signer is not named by issuer and number")
    _issuer, serial, *_ = _parts(who, 2)
    digest = _DIGESTS.get(_parts(algorithm, 1)[0].content)
    if digest is None:
        raise ValueError("it was made with a digest other than SHA-256, SHA-384 and SHA-512")
    signed = content
    if rest and rest[0].tag == _FIRST:
        attributes, *rest = rest
        if _message_digest(attributes) != hashlib.new(digest, content).digest():
            raise ValueError("it is a signature over something else")
        # What is signed then are the attributes, as the set that they are.
        signed = bytes([_SET]) + attributes.whole[1:]
    if [v.tag for v in (serial, *rest[:2])] != [_INTEGER, _SEQUENCE, _OCTETS]:
        raise ValueError("it is malformed")
    signature = rest[1].content
    return Signer(int.from_bytes(serial.content, signed=True), digest, signed, signature)


def _message_digest(attributes: _Value) -> bytes:
    for attribute in _inside(attributes):
        kind, values, *_ = _parts(attribute, 2)
        if kind.content == _MESSAGE_DIGEST:
            return _parts(values, 1)[0].content
    raise ValueError("its attributes lack a digest")


def _only(der: bytes, tag: int) -> _Value:
    values = _values(der)
    if len(values) != 1 or values[0].tag != tag:
        raise ValueError("it is malformed")
    return values[0]


def _parts(value: _Value, count: int) -> list[_Value]:
    values = _inside(value)
    if len(values) < count:
        raise ValueError("it is malformed")
    return values


def _inside(value: _Value) -> list[_Value]:
    return _values(value.content)


def _values(der: bytes) -> list[_Value]:
    found, offset = [], 0
    while offset < len(der):
        start = offset
        # Tags beyond 30 take more than a byte, and occur in none of these structures.
        if len(der) - offset < 2 or der[offset] & 0x1F == 0x1F:
            raise ValueError("it is malformed")
        tag, length = der[offset], der[offset + 1]
        offset += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[offset : offset + count])
            offset += count
            # Of no known length (0x80) is allowed elsewhere, but not here.
            if not 1 <= count <= 4:
                raise ValueError("it is malformed")
        if length > len(der) - offset:
            raise ValueError("it is cut off")
        content = der[offset : offset + length]
        offset += length
        found.append(_Value(tag, content, der[start:offset]))
    return found
