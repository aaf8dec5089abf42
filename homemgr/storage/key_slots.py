"""Key slots of systemd-homed: a volume key sealed with a password, in an extended attribute.

``trusted.fscrypt_slot<N>`` of the top directory, readable without the key. Two formats:

- ``$v2:ITERATIONS:SALT:IV:CIPHERTEXT:TAG``, AES-256-GCM, written since systemd 259;
- ``SALT:CIPHERTEXT``, AES-256-CTR with IV 0, which does not tell whether the password was right.

All in standard base64, the key by PBKDF2-HMAC-SHA512. Who may have made a slot is unknown: what
cannot be read is passed over.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from contextlib import suppress
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

log = logging.getLogger(__name__)

#: Extended attributes of this name and a number.
PREFIX = "trusted.fscrypt_slot"
_NAME = re.compile(rf"{re.escape(PREFIX)}([0-9]{{1,9}})")

#: Extended attribute with the number of the slot that was opened last. It tells nothing of a
#: password, and a wrong one costs no more than none.
_LIKELIEST = "trusted.homemgr.slot"

#: As systemd-homed writes them.
ITERATIONS, _OLD_ITERATIONS = 600_000, 65_535
_SALT_BYTES, _IV_BYTES, _TAG_BYTES = 64, 12, 16
_DERIVED_BYTES, _USED_BYTES = 64, 32

_MAX_ITERATIONS = 2**31 - 1
#: More slots than any record has passwords are not tried.
_MAX_SLOTS = 64


class Slot(NamedTuple):
    """One slot as it was read; ``iv`` and ``tag`` are empty in the old format."""

    number: int
    iterations: int
    salt: bytes
    iv: bytes
    sealed: bytes
    tag: bytes
    #: All of it, as it lies on disk.
    text: bytes

    @property
    def is_old(self) -> bool:
        """Whether systemd-homed before 259 can read it."""
        return not self.tag

    @property
    def is_usual(self) -> bool:
        """Whether it takes no more time than those that are written."""
        return self.iterations <= ITERATIONS

    def unseal(self, word: str) -> bytearray | None:
        """The key, if ``word`` is the right one; in the old format any word gives some key."""
        wrapping = _wrapping(word, self.salt, self.iterations)
        if self.is_old:
            return bytearray(_ctr(wrapping, self.sealed))
        try:
            return bytearray(AESGCM(wrapping).decrypt(self.iv, self.sealed + self.tag, None))
        except InvalidTag:
            return None


def new_salt() -> bytes:
    """The salt of a slot that is to be made."""
    return os.urandom(_SALT_BYTES)


def seal(key: bytes | bytearray, word: str, salt: bytes, *, is_old: bool) -> bytes:
    """What a slot holds that gives ``key`` to who knows ``word``; ``salt`` is a new one."""
    if is_old:
        sealed = _ctr(_wrapping(word, salt, _OLD_ITERATIONS), bytes(key))
        return b":".join(map(base64.b64encode, (salt, sealed)))
    iv = os.urandom(_IV_BYTES)
    both = AESGCM(_wrapping(word, salt, ITERATIONS)).encrypt(iv, bytes(key), None)
    parts = (salt, iv, both[:-_TAG_BYTES], both[-_TAG_BYTES:])
    return b"$v2:%d:%b" % (ITERATIONS, b":".join(map(base64.b64encode, parts)))


def numbers(directory: int) -> list[int]:
    """The numbers of all slots of a directory, in order."""
    found = (_NAME.fullmatch(name) for name in os.listxattr(directory))
    return sorted(int(match[1]) for match in found if match)


def attribute(number: int) -> str:
    """The name of the extended attribute of a slot."""
    return f"{PREFIX}{number}"


def read(directory: int) -> list[Slot]:
    """The slots of a directory that can be read, in order."""
    slots = []
    for number in numbers(directory)[:_MAX_SLOTS]:
        try:
            slots.append(parse(number, os.getxattr(directory, attribute(number))))
        except ValueError as error:
            log.warning("Key slot %d cannot be read: %s.", number, error)
    return slots


def likeliest(directory: int) -> int | None:
    """The number of the slot that was opened last; None if it is not known."""
    try:
        return int(os.getxattr(directory, _LIKELIEST))
    except (OSError, ValueError):
        return None


def note_likeliest(directory: int, number: int) -> None:
    """Remember which slot was opened, if there is room: to try another one first takes long."""
    with suppress(OSError):
        os.setxattr(directory, _LIKELIEST, b"%d" % number)


def forget_likeliest(directory: int) -> None:
    """Give its room to slots."""
    with suppress(OSError):
        os.removexattr(directory, _LIKELIEST)


def parse(number: int, text: bytes) -> Slot:
    """Take a slot apart; ValueError with what is wrong."""
    parts = text.split(b":")
    if parts[0] != b"$v2":
        if len(parts) != 2:
            raise ValueError(f"expected 2 parts, found {len(parts)}")
        salt, sealed = map(_decoded, parts)
        return _checked(Slot(number, _OLD_ITERATIONS, salt, b"", sealed, b"", text))
    if len(parts) != 6:
        raise ValueError(f"expected 6 parts, found {len(parts)}")
    if not re.fullmatch(rb"[0-9]{1,10}", parts[1]):
        raise ValueError("the number of iterations is none")
    salt, iv, sealed, tag = map(_decoded, parts[2:])
    slot = Slot(number, int(parts[1]), salt, iv, sealed, tag, text)
    if len(slot.iv) != _IV_BYTES or len(slot.tag) != _TAG_BYTES:
        raise ValueError("initialisation vector or tag have another length than AES-GCM has")
    return _checked(slot)


def _checked(slot: Slot) -> Slot:
    if not 1 <= slot.iterations <= _MAX_ITERATIONS:
        raise ValueError(f"{slot.iterations} iterations are none or too many")
    if not slot.salt or not slot.sealed:
        raise ValueError("salt or key are empty")
    return slot


def _decoded(text: bytes) -> bytes:
    # Its message would quote the text.
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("a part is no base64") from None


def stretched(word: str, salt: bytes, iterations: int) -> bytes:
    """PBKDF2-HMAC-SHA512, 64 bytes: nearly all of the time of a login. Other threads run meanwhile.

    With versions of `cryptography` that hold the interpreter lock they wait: slower, not wrong.
    """
    # A quarter less than with hashlib's, for the same result.
    kdf = PBKDF2HMAC(hashes.SHA512(), _DERIVED_BYTES, salt, iterations)
    return kdf.derive(word.encode("utf-8", "surrogateescape"))


def _wrapping(word: str, salt: bytes, iterations: int) -> bytes:
    return stretched(word, salt, iterations)[:_USED_BYTES]


def _ctr(key: bytes, text: bytes) -> bytes:
    transform = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return transform.update(text) + transform.finalize()
