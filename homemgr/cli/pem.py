"""Public keys in PEM form (RFC 7468), as the service gives them and people compare them."""

from __future__ import annotations

import binascii
import hashlib


def fingerprint(pem: str) -> str:
    """The SHA-256 of the key in DER form, 64 hexadecimal digits; empty if it is no key."""
    try:
        return hashlib.sha256(binascii.a2b_base64(one_line(pem), strict_mode=True)).hexdigest()
    except binascii.Error:
        return ""


def one_line(pem: str) -> str:
    """What stands between the lines that begin and end a key in PEM form."""
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))
