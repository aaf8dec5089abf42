"""A small area on a disk that holds one text, which is replaced as a whole or not at all.

Pure: reads through a function, and says what is to be written where. The area has two places
of the same size, which are written in turn: one that is torn, by a kill or a power cut, does not
count, and the other is what it was. A place holds, in little-endian numbers:

    offset  bytes
         0     16  "homemgr-record-1"
        16      8  number of the writing, the larger one counts
        24      4  length of the text in bytes
        28      4  zero
        32     32  SHA-256 of number, length and text
        64         the text
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from homemgr.volume.reading import Reader

#: Type of the partition that is such an area: ours, made by chance once.
RECORD_AREA: Final = "8a6f2c0e-9d0b-4c52-b1ce-5f7d1c3e7a94"
#: Bytes of an area; records have a few KiB.
AREA_SIZE: Final = 1 << 20

_MAGIC: Final = b"homemgr-record-1"
_HEADER: Final = struct.Struct("<16sQII32s")
_NUMBERS: Final = struct.Struct("<QI")
_PLACES: Final = 2
_LAST_NUMBER: Final = (1 << 64) - 1


class _Found(NamedTuple):
    place: int
    number: int
    text: bytes


def read(read_at: Reader, size: int) -> bytes | None:
    """The text in an area of ``size`` bytes; None if neither place holds a whole one."""
    found = _newest(read_at, size)
    return None if found is None else found.text


def replaced(read_at: Reader, size: int, text: bytes) -> tuple[int, bytes]:
    """Offset and bytes to be written so that ``text`` is what the area holds.

    ValueError if it is too long.
    """
    room = size // _PLACES
    if _HEADER.size + len(text) > room:
        raise ValueError(f"{len(text)} bytes are more than the {room - _HEADER.size} that fit")
    found = _newest(read_at, size)
    place, number = (0, 1) if found is None else (1 - found.place, found.number + 1)
    header = _HEADER.pack(_MAGIC, number, len(text), 0, _digest(number, text))
    return place * room, header + text


def _newest(read_at: Reader, size: int) -> _Found | None:
    room = size // _PLACES
    found = [_in_place(read_at, place, room) for place in range(_PLACES)]
    whole = [f for f in found if f is not None]
    return max(whole, key=lambda f: f.number, default=None)


def _in_place(read_at: Reader, place: int, room: int) -> _Found | None:
    raw = read_at(place * room, _HEADER.size)
    if len(raw) < _HEADER.size:
        return None
    magic, number, length, _, digest = _HEADER.unpack(raw)
    # The largest number could not be followed by another one.
    if magic != _MAGIC or length > room - _HEADER.size or number == _LAST_NUMBER:
        return None
    text = read_at(place * room + _HEADER.size, length)
    return _Found(place, number, text) if _digest(number, text) == digest else None


def _digest(number: int, text: bytes) -> bytes:
    return hashlib.sha256(_NUMBERS.pack(number, len(text)) + text).digest()
