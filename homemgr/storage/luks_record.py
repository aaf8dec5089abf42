"""The user record in the header of a LUKS volume, encrypted with the key of the volume.

So a record can be judged before its file system is mounted. Format of systemd-homed's token:
JSON with type, record and iv, both base64; one data unit of the cipher of the volume.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from homemgr.volume.probe import RECORD_TYPE

if TYPE_CHECKING:
    from homemgr.volume.luks import Volume

_IV_BYTES: Final = 16
#: XTS in the two strengths that AES has there.
_KEY_SIZES: Final = (32, 64)
_CIPHER: Final = "aes"
_MODE: Final = "xts-plain64"


def read(volume: Volume, key: bytearray) -> bytes | None:
    """The record; None if the header has none that can be read."""
    if not _is_usual(volume):
        return None
    for _, text in _tokens(volume):
        try:
            token = json.loads(text)
            data = base64.b64decode(token["record"], validate=True)
            iv = base64.b64decode(token["iv"], validate=True)
            decryptor = Cipher(algorithms.AES(bytes(key)), modes.XTS(iv)).decryptor()
            return decryptor.update(data) + decryptor.finalize()
        except (ValueError, KeyError, TypeError, binascii.Error):
            return None
    return None


def write(volume: Volume, key: bytearray, record: bytes) -> None:
    """Put ``record`` in the place of what is there; of several tokens the first is kept."""
    if not _is_usual(volume):
        return
    iv = os.urandom(_IV_BYTES)
    encryptor = Cipher(algorithms.AES(bytes(key)), modes.XTS(iv)).encryptor()
    sealed = encryptor.update(record) + encryptor.finalize()
    texts = {"record": base64.b64encode(sealed).decode(), "iv": base64.b64encode(iv).decode()}
    token = json.dumps({"type": RECORD_TYPE, "keyslots": [], **texts})
    numbers = [number for number, _ in _tokens(volume)]
    if not numbers:
        volume.set_token(token)
        return
    volume.set_token(token, numbers[0])
    for number in numbers[1:]:
        volume.set_token(None, number)


def _tokens(volume: Volume) -> list[tuple[int, str]]:
    found = []
    for number, text in sorted(volume.tokens().items()):
        try:
            token = json.loads(text)
        except ValueError:
            continue
        if isinstance(token, dict) and token.get("type") == RECORD_TYPE:
            found.append((number, text))
    return found


def _is_usual(volume: Volume) -> bool:
    return volume.cipher == (_CIPHER, _MODE) and volume.key_size in _KEY_SIZES
