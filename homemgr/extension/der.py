"""Structures in DER, as certificates and signatures are written: X.690.

Pure. Splits them into values and knows nothing of what those mean; ValueError if what
is read is none, or not whole.
"""

from __future__ import annotations

from typing import NamedTuple

INTEGER, OCTETS, OBJECT, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x30, 0x31
#: [0], constructed: what it is, the place says.
FIRST = 0xA0


class Value(NamedTuple):
    """One value."""

    tag: int
    content: bytes
    #: With tag and length.
    whole: bytes


def number(value: Value) -> int:
    """What an INTEGER says."""
    if value.tag != INTEGER:
        raise ValueError("it is malformed")
    return int.from_bytes(value.content, signed=True)


def only(raw: bytes, tag: int) -> Value:
    """The one value that all of ``raw`` is."""
    values = _values(raw)
    if len(values) != 1 or values[0].tag != tag:
        raise ValueError("it is malformed")
    return values[0]


def parts(value: Value, count: int) -> list[Value]:
    """What is in a structure that has ``count`` members at least."""
    values = inside(value)
    if len(values) < count:
        raise ValueError("it is malformed")
    return values


def inside(value: Value) -> list[Value]:
    """What is in a structure."""
    return _values(value.content)


def _values(raw: bytes) -> list[Value]:
    found, offset = [], 0
    while offset < len(raw):
        start = offset
        # Tags beyond 30 take more than a byte, and occur in none of these structures.
        if len(raw) - offset < 2 or raw[offset] & 0x1F == 0x1F:
            raise ValueError("it is malformed")
        tag, length = raw[offset], raw[offset + 1]
        offset += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(raw[offset : offset + count])
            offset += count
            # Of no known length (0x80) is allowed elsewhere, but not here.
            if not 1 <= count <= 4:
                raise ValueError("it is malformed")
        if length > len(raw) - offset:
            raise ValueError("it is cut off")
        content = raw[offset : offset + length]
        offset += length
        found.append(Value(tag, content, raw[start:offset]))
    return found
