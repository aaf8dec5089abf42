"""Public keys of tokens as `cryptography` has them, and a key that only the token can get at."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from homemgr.errors import NotSupported
from homemgr.token import cryptoki

if TYPE_CHECKING:
    from homemgr.token.cryptoki import Session

_KEY_BYTES: Final = 32
#: The object identifier id-ecPublicKey (RFC 5480) as DER.
_EC_PUBLIC_KEY: Final = bytes.fromhex("06072a8648ce3d0201")
_SEQUENCE, _BIT_STRING, _OCTET_STRING = 0x30, 0x03, 0x04

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def public_key_of(session: Session, private: int) -> PublicKey:
    """The public half of a private key on the token: an object beside it, or in its certificate.

    Raises NotSupported if there is none, or of a kind that encrypts nothing.
    """
    identity = (cryptoki.ID, session.attribute(private, cryptoki.ID))
    for kind, read in ((cryptoki.PUBLIC_KEY, _of_object), (cryptoki.CERTIFICATE, _of_certificate)):
        found = session.find([(cryptoki.CLASS, cryptoki.number(kind)), identity])
        if found:
            return _usable(read(session, found[0]))
    raise NotSupported("The security token has neither public key nor certificate for its key.")


def lock(public: PublicKey) -> tuple[bytes, bytes]:
    """A new random key, and what of it goes into a record: only the token makes one of the other.

    PKCS #1 v1.5 for RSA: no later padding is known to every token and every systemd-homed. What
    is decrypted comes from a signed record, so nobody can try out ciphertexts on the token.
    """
    if isinstance(public, rsa.RSAPublicKey):
        key = secrets.token_bytes(_KEY_BYTES)
        return key, public.encrypt(key, padding.PKCS1v15())
    ours = ec.generate_private_key(public.curve)
    half = ours.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return ours.exchange(ec.ECDH(), public), half


def point_of(data: bytes) -> tuple[bytes, int]:
    """The point in what `lock` made for a curve, uncompressed, and the bytes of a shared secret."""
    try:
        key = load_der_public_key(data)
    except ValueError as error:
        raise NotSupported("The record holds no public key for the token.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise NotSupported("The record's key for the token is on no elliptic curve.")
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point, (key.curve.key_size + 7) // 8


def _usable(key: object) -> PublicKey:
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return key
    raise NotSupported("The security token's key is neither RSA nor on an elliptic curve.")


def _of_certificate(session: Session, handle: int) -> object:
    certificate = x509.load_der_x509_certificate(session.attribute(handle, cryptoki.VALUE))
    return certificate.public_key()


def _of_object(session: Session, handle: int) -> object:
    if int.from_bytes(session.attribute(handle, cryptoki.KEY_TYPE), "little") == cryptoki.RSA:
        parts = (cryptoki.PUBLIC_EXPONENT, cryptoki.MODULUS)
        exponent, modulus = (int.from_bytes(session.attribute(handle, p), "big") for p in parts)
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    curve = session.attribute(handle, cryptoki.EC_PARAMS)
    # The standard wraps the point into an OCTET STRING, which not every driver does.
    point = session.attribute(handle, cryptoki.EC_POINT)
    bare = _unwrapped(point)
    algorithm = _der(_SEQUENCE, _EC_PUBLIC_KEY + curve)
    return load_der_public_key(_der(_SEQUENCE, algorithm + _der(_BIT_STRING, b"\0" + bare)))


def _unwrapped(point: bytes) -> bytes:
    """The octets of a DER OCTET STRING; anything else as it is."""
    for header in (2, 3):
        if point == _der(_OCTET_STRING, point[header:]):
            return point[header:]
    return point


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    # Points and keys on curves stay far below 256 bytes.
    return bytes([tag, length] if length < 0x80 else [tag, 0x81, length]) + content
