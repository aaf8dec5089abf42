"""Whose signatures under disk images count here: the certificates in verity.d, as for systemd.

A certificate is trusted because of where it lies. Who issued it and until when it was
meant to be used is not asked, as systemd does not: it is taken away by deleting it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from homemgr.errors import ExtensionNotTrusted
from homemgr.extension import cms
from homemgr.extension.trusted import open_trusted
from homemgr.files import read_limited

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)

#: Earlier ones hide what later ones have under the same name; a link to /dev/null hides it too.
DIRECTORIES = ("/etc/verity.d", "/run/verity.d", "/usr/local/lib/verity.d", "/usr/lib/verity.d")

_SUFFIX = ".crt"
_LIMIT = 1 << 16

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def trusted(directories: Iterable[str] = DIRECTORIES) -> list[x509.Certificate]:
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
            found.append(x509.load_pem_x509_certificate(text))
        except (OSError, ValueError, ExtensionNotTrusted) as error:
            log.warning("Certificate %s is not used: %s", path, error)
    return found


def require_signed(
    content: bytes, signature: bytes, certificates: Iterable[x509.Certificate]
) -> None:
    """ValueError unless one of ``certificates`` made this PKCS#7 signature of ``content``."""
    signers = cms.signers(signature, content)
    known = [(s, c) for s in signers for c in certificates if c.serial_number == s.serial]
    if not known:
        numbers = ", ".join(f"{signer.serial:x}" for signer in signers) or "nobody"
        raise ValueError(
            "nobody who is trusted here made it (the certificate of its signer has the number"
            f" {numbers}); the certificate belongs into {DIRECTORIES[0]} as *{_SUFFIX}"
        )
    if not any(_is_good(signer, certificate) for signer, certificate in known):
        raise ValueError("it is wrong: not made by the certificate it names, or for another image")


def _is_good(signer: cms.Signer, certificate: x509.Certificate) -> bool:
    digest = _HASHES[signer.digest]
    try:
        key = certificate.public_key()
        if isinstance(key, RSAPublicKey):
            key.verify(signer.signature, signer.signed, PKCS1v15(), digest)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signer.signature, signer.signed, ECDSA(digest))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
