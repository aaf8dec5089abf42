"""Accelerators: beside a key slot of systemd-homed a quicker way to the same key.

What makes a slot slow to guess is PBKDF2 with 600,000 rounds, each of which needs the one before:
a third of a second of one processor, while the others idle. An accelerator seals the key once
more, with two chains of half as many rounds that two processors work on at the same time.

The slot stays the truth. An accelerator that is missing, damaged, of another version or made for
another slot is passed over, and its slot is asked. Where it says "no" to a word, that is believed
only if the record of the home says so too (see `sealing.unsealed`): by an accelerator that somebody
has made up nobody is kept out, and a wrong word still costs no more than the rounds of one slot.

Extended attribute ``trusted.homemgr.accelerator<N>`` of the top directory, beside slot N; like the
slots it stays behind when the files of a home travel. Binary, version 1:

====================  =====  =======================================================================
version                   1  1
salt                     32  random, new in each
check                    16  the first bytes of HMAC-SHA512 over all the rest of it; the key of that
                             is no secret, but SHA-512 of a label and the whole text of slot N
sealed                 rest  the key with AES-256-GCM, tag at the end; version and salt are
                             associated data, key and IV the result of the steps below
====================  =====  =======================================================================

1. Chain 1 and chain 2: PBKDF2-HMAC-SHA512 of the word, ⌈rounds of slot N / 2⌉ rounds each, to 64
   bytes; salts are a label with the number of the chain, then the salt above, then that of slot N.
2. HKDF-SHA512 of both results, one after the other, to 32 bytes of key and 12 of IV; its salt is
   SHA-512 of another label and the whole text of slot N.

Why that is no weaker than the slot of systemd-homed (its constants are those of `key_slots`):

- A guess costs at least as many rounds of the same function. Neither chain can be tested alone:
  HKDF needs both, and nothing on disk depends on one of them. Who guesses keeps all his processors
  busy with different words; that one word takes half the time on two of them gains him nothing.
- Chains, slots and accelerators share no work: each has a salt of its own, with 32 random bytes
  here and 64 in the slot, and the labels keep the chains and the two uses of the text apart.
- Key and IV are used for one text only, as the salt is new in each.
- It dies with its slot. Both salts of the chains and that of HKDF need the text of the slot, of
  which 64 bytes are random: when systemd-homed, or an older version of this program, replaces or
  removes a slot, the old password opens nothing with what is left on disk. ``check`` does not give
  the text away, and only tells whether the two belong together and are whole.
- GCM alone does not bind a text to one key. What comes out has to be the key that the policy of the
  directory names, as with slots.

Who can write these attributes is root, or has the disk: he could as well damage or add slots.

With one processor there is nothing to gain: accelerators are neither made nor used there.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from homemgr.storage.key_slots import stretched

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.key_slots import Slot

log = logging.getLogger(__name__)

#: Extended attributes of this name and the number of a slot.
PREFIX = "trusted.homemgr.accelerator"

_VERSION = b"\x01"
_SALT_BYTES, _CHECK_BYTES, _KEY_BYTES, _IV_BYTES = 32, 16, 32, 12
_HEAD_BYTES = len(_VERSION) + _SALT_BYTES

#: No two of them begin alike, so that nothing made for one purpose serves another.
_LABEL = b"homemgr accelerator 1 "
_CHAINS = (_LABEL + b"chain 1:", _LABEL + b"chain 2:")
_CHECK, _KEY = _LABEL + b"check:", _LABEL + b"key:"


class Accelerator(NamedTuple):
    """One that belongs to its slot and is whole; which word it takes nobody knows."""

    slot: Slot
    salt: bytes
    sealed: bytes

    @property
    def is_usual(self) -> bool:
        """Whether it takes no more time than those that are written."""
        return self.slot.is_usual

    def unseal(self, word: str) -> bytearray | None:
        """What ``word`` opens it to, with two processors; None if it does not."""
        chains = _at_once(word, self.slot, self.salt)
        key, iv = _key_and_iv(chains, self.slot)
        with suppress(InvalidTag):
            return bytearray(AESGCM(key).decrypt(iv, self.sealed, _VERSION + self.salt))
        return None


class Making:
    """Has the chains for a slot made in a thread, while the block makes or opens the slot itself.

    That takes as long as the slot does, on another processor.
    """

    def __init__(
        self, word: str, salt: bytes, iterations: int, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """For the slot with that salt and as many rounds; ``is_wanted`` is asked in the thread."""
        self._word, self._slot_salt, self._iterations = word, salt, iterations
        self._is_wanted = is_wanted
        self._salt = os.urandom(_SALT_BYTES)
        self._chains: bytes | None = None
        self._thread = threading.Thread(target=self._make)

    def __enter__(self) -> Making:
        """Begin, if there is a processor for it."""
        if is_useful():
            # Where no thread can be had there is no accelerator, but a slot.
            with suppress(RuntimeError):
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for it."""
        if self._thread.ident is not None:
            self._thread.join()

    def _make(self) -> None:
        if self._is_wanted():
            self._chains = b"".join(
                _chain(self._word, label, self._salt, self._slot_salt, self._iterations)
                for label in _CHAINS
            )

    def sealed(self, key: bytes | bytearray, slot: Slot) -> bytes | None:
        """The accelerator of ``slot``, which gives ``key``; None if it was not made."""
        if self._chains is None:
            return None
        wrapping, iv = _key_and_iv(self._chains, slot)
        head = _VERSION + self._salt
        sealed = AESGCM(wrapping).encrypt(iv, bytes(key), head)
        return head + _check(head, sealed, slot) + sealed


def is_useful() -> bool:
    """Whether this process may use two processors at once."""
    return len(os.sched_getaffinity(0)) > 1


def parse(text: bytes, slot: Slot) -> Accelerator:
    """Take the accelerator of ``slot`` apart; ValueError with why it is none."""
    head, rest = text[:_HEAD_BYTES], text[_HEAD_BYTES:]
    check, sealed = rest[:_CHECK_BYTES], rest[_CHECK_BYTES:]
    if not head.startswith(_VERSION):
        raise ValueError("it has another version")
    if not hmac.compare_digest(check, _check(head, sealed, slot)):
        raise ValueError("it is damaged or belongs to another slot")
    return Accelerator(slot, head[len(_VERSION) :], sealed)


def read(directory: int, slot: Slot) -> Accelerator | None:
    """The accelerator beside a slot of a directory; None if there is none that can be used."""
    # The old format tells right words from wrong ones by nothing, and has a tenth of the rounds.
    if slot.is_old or not is_useful():
        return None
    try:
        return parse(os.getxattr(directory, _attribute(slot.number)), slot)
    except OSError:
        return None
    except ValueError as error:
        log.debug("Accelerator %d is passed over: %s.", slot.number, error)
        return None


def write(directory: int, number: int, text: bytes | None) -> None:
    """Put one beside its slot, if there is one and there is room: it only saves time."""
    if text is not None:
        with suppress(OSError):
            os.setxattr(directory, _attribute(number), text)


def forget(directory: int, number: int) -> None:
    """Remove the accelerator beside a slot."""
    with suppress(OSError):
        os.removexattr(directory, _attribute(number))


def forget_all(directory: int) -> None:
    """Remove all of them, whether there is a slot beside them or not."""
    for name in os.listxattr(directory):
        if name.startswith(PREFIX):
            with suppress(OSError):
                os.removexattr(directory, name)


def _attribute(number: int) -> str:
    return f"{PREFIX}{number}"


def _at_once(word: str, slot: Slot, salt: bytes) -> bytes:
    """The results of both chains, made at the same time."""
    made: dict[bytes, bytes] = {}

    def make(label: bytes) -> None:
        made[label] = _chain(word, label, salt, slot.salt, slot.iterations)

    first, second = _CHAINS
    other = threading.Thread(target=make, args=(second,))
    # Where no thread can be had, one after the other.
    with suppress(RuntimeError):
        other.start()
    make(first)
    if other.ident is not None:
        other.join()
    else:
        make(second)
    return made[first] + made[second]


def _chain(word: str, label: bytes, salt: bytes, slot_salt: bytes, iterations: int) -> bytes:
    # Rounded up: two of them are never less than the slot.
    return stretched(word, label + salt + slot_salt, (iterations + 1) // 2)


def _key_and_iv(chains: bytes, slot: Slot) -> tuple[bytes, bytes]:
    expanded = HKDF(hashes.SHA512(), _KEY_BYTES + _IV_BYTES, _of(slot, _KEY), _KEY).derive(chains)
    return expanded[:_KEY_BYTES], expanded[_KEY_BYTES:]


def _check(head: bytes, sealed: bytes, slot: Slot) -> bytes:
    return hmac.digest(_of(slot, _CHECK), head + sealed, "sha512")[:_CHECK_BYTES]


def _of(slot: Slot, label: bytes) -> bytes:
    """A digest of the whole text of a slot, for one purpose."""
    return hashlib.sha512(label + slot.text).digest()
