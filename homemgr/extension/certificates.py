"""Whose signatures under disk images count here: the certificates in verity.d, as for systemd.

A certificate is trusted because of where it lies. Who issued it and until when it was
meant to be used is not asked, as systemd does not: it is taken away by deleting it.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from homemgr.errors import ExtensionNotTrusted
from homemgr.extension import cms, der
from homemgr.extension.trusted import open_trusted
from homemgr.files import read_limited

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

log = logging.getLogger(__name__)

#: Earlier ones hide what later ones have under the same name; a link to /dev/null hides it too.
DIRECTORIES = ("/etc/verity.d", "/run/verity.d", "/usr/local/lib/verity.d", "/usr/lib/verity.d")

_SUFFIX = ".crt"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_LIMIT = 1 << 16

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class Certificate(NamedTuple):
    """What counts of it here."""

    serial: int
    key: PublicKeyTypes


def trusted(directories: Iterable[str] = DIRECTORIES) -> list[Certificate]:
    """All certificates whose signatures count; what cannot be read is logged and left out."""
    paths: dict[str, str] = {}
    for directory in directories:
        with suppress(OSError):
            for name in sorted(os.listdir(directory)):
                if name.endswith(_SUFFIX):
                    paths.setdefault(name, os.path.join(directory, name))
    found = []
    for path in paths.values():
        # Compared by name: a device cannot be opened here to ask it.
        if os.path.realpath(path) == os.devnull:
            continue
        try:
            with open_trusted(path) as file:
                text = read_limited(file.fileno(), _LIMIT, path)
            found.append(parse(text))
        except (OSError, ValueError, UnsupportedAlgorithm, ExtensionNotTrusted) as error:
            log.warning("Certificate %s is not used: %s", path, error)
    return found


def parse(pem: bytes) -> Certificate:
    """The first certificate in a PEM text: RFC 5280, section 4.1.

    Read by ourselves: to load the library's module for certificates takes longer than the
    rest of a login with an extension.
    """
    match = _PEM.search(pem)
    if match is None:
        raise ValueError("it holds no certificate")
    raw = base64.b64decode(match[1])
    signed = der.parts(der.only(raw, der.SEQUENCE), 3)[0]
    # Without the version of the format, which need not be there.
    fields = [value for value in der.inside(signed) if value.tag != der.FIRST]
    if len(fields) < 6:
        raise ValueError("it is malformed")
    serial, _algorithm, _issuer, _validity, _subject, key, *_ = fields
    return Certificate(der.number(serial), load_der_public_key(key.whole))


def require_signed(content: bytes, signature: bytes, certificates: Iterable[Certificate]) -> None:
    """ValueError unless one of ``certificates`` made this PKCS#7 signature of ``content``."""
    signers = cms.signers(signature, content)
    known = [(s, c) for s in signers for c in certificates if c.serial == s.serial]
    if not known:
        numbers = ", ".join(f"{signer.serial:x}" for signer in signers) or "nobody"
        raise ValueError(
            "nobody who is trusted here made it (the certificate of its signer has the number"
            f" {numbers}); the certificate belongs into {DIRECTORIES[0]} as *{_SUFFIX}"
        )
    if not any(_is_good(signer, certificate) for signer, certificate in known):
        raise ValueError("it is wrong: not made by the certificate it names, or for another image")


def _is_good(signer: cms.Signer, certificate: Certificate) -> bool:
    digest = _HASHES[signer.digest]
    key = certificate.key
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signer.signature, signer.signed, PKCS1v15(), digest)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signer.signature, signer.signed, ECDSA(digest))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
