"""D-Bus values to bytes and back, through one compiled closure per type.

Knows signatures and the wire layout of the D-Bus specification; no messages, no
sockets. Imports nothing slow: the command line loads this module on every start.
Byte order on the way out is little endian, on the way in either.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from struct import Struct

from homemgr.files import Fd
from homemgr.wire.signature import ALIGN, CodecError, is_object_path, single, split

# A literal instead of typing.TYPE_CHECKING: importing typing costs 3 ms per start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Encoder = Callable[["Body", object], None]
    Decoder = Callable[[bytes, int], tuple[object, int]]

#: Limit of the specification.
MAX_ARRAY_BYTES = 64 << 20

#: Basic types of fixed size: their `struct` letter.
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}

_PAD = tuple(bytes(n) for n in range(8))
_U32 = Struct("<I").pack


class Variant:
    """A value that carries its own signature: D-Bus type ``v``, values of ``a{sv}``."""

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: object) -> None:
        """``value`` as type ``signature``, which is one complete type."""
        self.signature = signature
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Equal if signature and value are."""
        if not isinstance(other, Variant):
            return NotImplemented
        return self.signature == other.signature and self.value == other.value

    def __hash__(self) -> int:
        """Like the value, which has to be hashable then."""
        return hash((self.signature, self.value))

    def __repr__(self) -> str:
        """As one would write it."""
        return f"Variant({self.signature!r}, {self.value!r})"


class Encoded:
    """A message body that was encoded before, so that a long answer can be kept and reused."""

    __slots__ = ("data", "signature")

    def __init__(self, signature: str, data: bytes) -> None:
        """``data`` as `encode` made it for ``signature``; it holds no descriptor."""
        self.signature = signature
        self.data = data


class Handle(int):
    """A received ``h``: the index of a descriptor among those that came with the message."""

    __slots__ = ()


class Body(bytearray):
    """A body under construction and the descriptors that travel with it."""

    __slots__ = ("fds",)

    def __init__(self, fds: Iterable[Fd] = ()) -> None:
        """Start empty; integers given for ``h`` are indexes into ``fds``."""
        super().__init__()
        self.fds: list[Fd] = list(fds)

    def close_fds(self) -> None:
        """Close the descriptors of a body that is not sent after all."""
        for fd in self.fds:
            fd.close()


# --- values to bytes ------------------------------------------------------------------


def encode(signature: str, values: Sequence[object], fds: Iterable[Fd] = ()) -> Body:
    """The body for ``values``; `Fd` objects met under ``h`` are collected in ``Body.fds``."""
    types = split(signature)
    if len(types) != len(values):
        raise CodecError(f"{len(values)} values given for signature {signature!r}")
    body = Body(fds)
    try:
        for kind, value in zip(types, values, strict=True):
            _encoder(kind)(body, value)
    except (struct.error, UnicodeError, OverflowError, TypeError) as wrong:
        raise CodecError(f"a value does not fit signature {signature!r}") from wrong
    return body


@lru_cache(maxsize=256)
def _encoder(kind: str) -> Encoder:
    first = kind[0]
    if first in _FIXED:
        return _fixed_encoder(_FIXED[first])
    if first == "a":
        return _array_encoder(kind[1:])
    if first == "(":
        return _struct_encoder(split(kind[1:-1]))
    return _ENCODERS[first]


def _fixed_encoder(letter: str) -> Encoder:
    packer = Struct("<" + letter)
    pack, mask = packer.pack, packer.size - 1

    def encode_fixed(body: Body, value: object) -> None:
        body += _PAD[-len(body) & mask]
        body += pack(value)

    return encode_fixed


def _encode_boolean(body: Body, value: object) -> None:
    if value is not True and value is not False:
        raise CodecError(f"a boolean is wanted, not {type(value).__name__}")
    # Four bytes, and nothing but 0 and 1 is valid.
    body += _PAD[-len(body) & 3]
    body += b"\1\0\0\0" if value else b"\0\0\0\0"


def _encode_string(body: Body, value: object) -> None:
    if not isinstance(value, str):
        raise CodecError(f"a string is wanted, not {type(value).__name__}")
    data = value.encode()
    # The bus disconnects whoever sends a string with NUL in it.
    if 0 in data:
        raise CodecError("a string on the bus cannot hold a NUL character")
    body += _PAD[-len(body) & 3]
    body += _U32(len(data))
    body += data
    body.append(0)


def _encode_path(body: Body, value: object) -> None:
    if not isinstance(value, str) or not is_object_path(value):
        raise CodecError("an object path is wanted")
    _encode_string(body, value)


def _encode_signature(body: Body, value: object) -> None:
    if not isinstance(value, str):
        raise CodecError(f"a signature is wanted, not {type(value).__name__}")
    split(value)
    data = value.encode()
    body.append(len(data))
    body += data
    body.append(0)


def _encode_handle(body: Body, value: object) -> None:
    if isinstance(value, Fd):
        if not value.is_open:
            raise CodecError("a descriptor is to be sent that was closed or taken")
        body.fds.append(value)
        value = len(body.fds) - 1
    if not isinstance(value, int) or not 0 <= value < len(body.fds):
        raise CodecError("a descriptor, or the index of one that is sent along, is wanted")
    body += _PAD[-len(body) & 3]
    body += _U32(value)


def _encode_variant(body: Body, value: object) -> None:
    if not isinstance(value, Variant):
        raise CodecError(f"a Variant is wanted, not {type(value).__name__}")
    kind = single(value.signature)
    _encode_signature(body, kind)
    _encoder(kind)(body, value.value)


_ENCODERS: dict[str, Encoder] = {
    "b": _encode_boolean,
    "s": _encode_string,
    "o": _encode_path,
    "g": _encode_signature,
    "h": _encode_handle,
    "v": _encode_variant,
}


def _struct_encoder(kinds: tuple[str, ...]) -> Encoder:
    members = tuple(_encoder(kind) for kind in kinds)

    def encode_struct(body: Body, value: object) -> None:
        if not isinstance(value, (tuple, list)) or len(value) != len(members):
            raise CodecError(f"a tuple of {len(members)} values is wanted")
        body += _PAD[-len(body) & 7]
        for member, item in zip(members, value, strict=True):
            member(body, item)

    return encode_struct


def _array_encoder(element: str) -> Encoder:
    if element[0] == "{":
        return _framed(8, _dict_items(element))
    if element == "y":
        return _framed(1, _byte_items)
    encode_item = _encoder(element)

    def items(body: Body, value: object) -> None:
        if not isinstance(value, (list, tuple)):
            raise CodecError(f"a list is wanted, not {type(value).__name__}")
        for item in value:
            encode_item(body, item)

    return _framed(ALIGN[element[0]], items)


def _dict_items(element: str) -> Encoder:
    encode_key, encode_value = _encoder(element[1]), _encoder(element[2:-1])

    def items(body: Body, value: object) -> None:
        if not isinstance(value, dict):
            raise CodecError(f"a dictionary is wanted, not {type(value).__name__}")
        for key, item in value.items():
            body += _PAD[-len(body) & 7]
            encode_key(body, key)
            encode_value(body, item)

    return items


def _byte_items(body: Body, value: object) -> None:
    if not isinstance(value, (bytes, bytearray)):
        raise CodecError(f"bytes are wanted, not {type(value).__name__}")
    body += value


def _framed(align: int, items: Encoder) -> Encoder:
    """An array: its length, the padding that the length leaves out, its items."""
    mask = align - 1

    def encode_array(body: Body, value: object) -> None:
        body += _PAD[-len(body) & 3]
        at = len(body)
        body += _PAD[4]
        # Present even if there are no items; this is where decoders often go wrong.
        body += _PAD[-len(body) & mask]
        start = len(body)
        items(body, value)
        size = len(body) - start
        if size > MAX_ARRAY_BYTES:
            raise CodecError("an array is longer than 64 MiB")
        body[at : at + 4] = _U32(size)

    return encode_array


# --- bytes to values ----------------------------------------------------------------------


def decode(signature: str, data: bytes, start: int = 0, order: str = "<") -> list[object]:
    """The values in ``data`` from ``start``, a multiple of 8, to its end.

    Arrays are lists (``ay`` bytes), structs tuples, dictionaries dicts, ``v`` a `Variant`,
    ``h`` a `Handle`.
    """
    values, at = [], start
    try:
        for kind in split(signature):
            value, at = decoder(kind, order)(data, at)
            values.append(value)
    except (struct.error, IndexError, UnicodeError, RecursionError) as wrong:
        raise CodecError(f"the body does not follow its signature {signature!r}") from wrong
    if at != len(data):
        raise CodecError(f"the body is longer than its signature {signature!r}")
    return values


@lru_cache(maxsize=256)
def decoder(kind: str, order: str) -> Decoder:
    """The function from ``(bytes, offset)`` to ``(value, next offset)`` for one complete type."""
    first = kind[0]
    if first in _FIXED:
        return _fixed_decoder(_FIXED[first], order)
    if first == "b":
        return _boolean_decoder(order)
    if first == "h":
        return _handle_decoder(order)
    if first in "so":
        return _string_decoder(order)
    if first == "g":
        return _decode_signature
    if first == "v":
        return _variant_decoder(order)
    if first == "(":
        return _struct_decoder(split(kind[1:-1]), order)
    return _array_decoder(kind[1:], order)


def _fixed_decoder(letter: str, order: str) -> Decoder:
    packer = Struct(order + letter)
    unpack, size = packer.unpack_from, packer.size

    def decode_fixed(data: bytes, at: int) -> tuple[object, int]:
        at = (at + size - 1) & -size
        return unpack(data, at)[0], at + size

    return decode_fixed


def _boolean_decoder(order: str) -> Decoder:
    number = _fixed_decoder("I", order)

    def decode_boolean(data: bytes, at: int) -> tuple[object, int]:
        value, at = number(data, at)
        if value not in (0, 1):
            raise CodecError("a boolean is neither 0 nor 1")
        return value == 1, at

    return decode_boolean


def _handle_decoder(order: str) -> Decoder:
    unpack = Struct(order + "I").unpack_from

    def decode_handle(data: bytes, at: int) -> tuple[object, int]:
        at = (at + 3) & -4
        return Handle(unpack(data, at)[0]), at + 4

    return decode_handle


def _string_decoder(order: str) -> Decoder:
    unpack = Struct(order + "I").unpack_from

    def decode_string(data: bytes, at: int) -> tuple[object, int]:
        at = (at + 3) & -4
        end = at + 4 + unpack(data, at)[0]
        # Reading the terminator is the bounds check as well.
        if data[end]:
            raise CodecError("a string does not end in NUL")
        return str(data[at + 4 : end], "utf-8"), end + 1

    return decode_string


def _decode_signature(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if data[end]:
        raise CodecError("a signature does not end in NUL")
    return str(data[at + 1 : end], "ascii"), end + 1


def _variant_decoder(order: str) -> Decoder:
    def decode_variant(data: bytes, at: int) -> tuple[object, int]:
        signature, at = _decode_signature(data, at)
        value, at = decoder(single(signature), order)(data, at)
        return Variant(signature, value), at

    return decode_variant


def _struct_decoder(kinds: tuple[str, ...], order: str) -> Decoder:
    members = tuple(decoder(kind, order) for kind in kinds)

    def decode_struct(data: bytes, at: int) -> tuple[object, int]:
        at = (at + 7) & -8
        values = []
        for member in members:
            value, at = member(data, at)
            values.append(value)
        return tuple(values), at

    return decode_struct


def _array_bounds(order: str, align: int) -> Callable[[bytes, int], tuple[int, int]]:
    unpack = Struct(order + "I").unpack_from

    def bounds(data: bytes, at: int) -> tuple[int, int]:
        at = (at + 3) & -4
        size = unpack(data, at)[0]
        start = (at + 4 + align - 1) & -align
        if size > MAX_ARRAY_BYTES or start + size > len(data):
            raise CodecError("an array is longer than its message")
        return start, start + size

    return bounds


def _array_decoder(element: str, order: str) -> Decoder:
    bounds = _array_bounds(order, ALIGN[element[0]])
    if element == "y":
        return lambda data, at: _slice(data, *bounds(data, at))
    if element[0] == "{":
        return _dict_decoder(element, order)
    decode_item = decoder(element, order)

    def decode_array(data: bytes, at: int) -> tuple[object, int]:
        at, end = bounds(data, at)
        values = []
        while at < end:
            value, at = decode_item(data, at)
            values.append(value)
        if at != end:
            raise CodecError("the last item of an array is cut off")
        return values, at

    return decode_array


def _slice(data: bytes, start: int, end: int) -> tuple[object, int]:
    return data[start:end], end


def _dict_decoder(element: str, order: str) -> Decoder:
    bounds = _array_bounds(order, 8)
    decode_key, decode_value = decoder(element[1], order), decoder(element[2:-1], order)

    def decode_dict(data: bytes, at: int) -> tuple[object, int]:
        at, end = bounds(data, at)
        # Keys given twice: the last one counts, as everywhere.
        values: dict[object, object] = {}
        while at < end:
            key, at = decode_key(data, (at + 7) & -8)
            values[key], at = decode_value(data, at)
        if at != end:
            raise CodecError("the last entry of a dictionary is cut off")
        return values, at

    return decode_dict
