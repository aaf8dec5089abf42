"""The header of a LUKS2 volume as it lies on a device, read without a library or a password.

Format: "LUKS2 On-Disk Format Specification", sections 2.1 and 3.1. Pure: reads through a function.
Of its two copies only the first is read: cryptsetup mends that from the other when it is used.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from homemgr.volume.reading import Reader

MAGIC: Final = b"LUKS\xba\xbe"
#: magic, version, header size, sequence, label, checksum algorithm, salt, uuid, subsystem,
#: offset; the checksum itself is in its last 64 of the first 512 bytes.
_BINARY: Final = struct.Struct(">6sHQQ48s32s64s40s48sQ184x64s")
_BINARY_BYTES: Final = 4096
_CHECKSUM: Final = slice(448, 512)
_VERSION: Final = 2
#: The sizes that a header may have: 16 KiB to 4 MiB, in powers of two.
_SMALLEST, _LARGEST = 16 << 10, 4 << 20


class Header(NamedTuple):
    """What everybody may read of a volume."""

    uuid: str
    label: str
    subsystem: str
    #: Types of the tokens that programs keep in it.
    token_types: frozenset[str]


def parse(read: Reader) -> Header | None:
    """The header at the start of a device; None if there is none that is whole."""
    start = read(0, _BINARY.size)
    if len(start) < _BINARY.size or not start.startswith(MAGIC):
        return None
    _, version, size, _, label, algorithm, _, uuid, subsystem, _, checksum = _BINARY.unpack(start)
    if version != _VERSION or not _SMALLEST <= size <= _LARGEST or size & (size - 1):
        return None
    whole = bytearray(read(0, size))
    whole[_CHECKSUM] = bytes(64)
    if len(whole) != size or not _is_sum(_text(algorithm), bytes(whole), checksum):
        return None
    area = bytes(whole[_BINARY_BYTES:]).partition(b"\0")[0]
    return Header(_text(uuid), _text(label), _text(subsystem), _token_types(area))


def uuid_at(read: Reader) -> str:
    """The UUID of a header that may be half written; empty if none begins there."""
    start = read(0, _BINARY.size)
    if len(start) < _BINARY.size or not start.startswith(MAGIC):
        return ""
    return _text(_BINARY.unpack(start)[7])


def _is_sum(algorithm: str, data: bytes, checksum: bytes) -> bool:
    try:
        found = hashlib.new(algorithm, data).digest()
    except ValueError:
        return False
    return hmac.compare_digest(found, checksum[: len(found)])


def _token_types(area: bytes) -> frozenset[str]:
    try:
        tokens = json.loads(area)["tokens"].values()
        return frozenset(str(token["type"]) for token in tokens)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
