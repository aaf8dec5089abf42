"""Bytes of a stream to the frames of `frames`: everything is checked that a frame says.

Whether it may come at this point is for the receiver to judge, and order and extent of
content for `content.ContentDigest`.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.transfer.codec import MAX_SIZE, SIGNATURE_BYTES, decode
from homemgr.transfer.content import DIGEST_BYTES
from homemgr.transfer.entry import Entry, Kind, check_name, check_path
from homemgr.transfer.frames import (
    HEADER,
    MAX_DATA,
    MAX_FRAME,
    MAX_PAIRS,
    SMALL,
    Control,
    Copy,
    Data,
    Delete,
    Enter,
    Eof,
    File,
    Frame,
    Hole,
    Leave,
    Node,
    Number,
    Pairs,
    Patch,
    Same,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_EXTENT = struct.Struct(">QQ")


class Decoder:
    """Bytes as they come to frames; holds at most one that is not complete."""

    def __init__(self) -> None:
        """Begin between two frames."""
        self._held = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[Frame]:
        """All frames that end in ``data``; take the last before feeding more.

        `StreamError` on what is malformed: nothing that comes later has a meaning then.
        """
        position = 0
        held = self._held
        while held:
            wanted = HEADER.size if len(held) < HEADER.size else _frame_end(held, 0)
            if len(held) == wanted >= HEADER.size and _frame_end(held, 0) == wanted:
                number = held[0]
                if number in _IN_PLACE:
                    self._held = bytearray()
                    yield _parse(number, held, HEADER.size, wanted)
                    held = self._held
                    break
                del held[: HEADER.size]
                body = bytes(held)
                held.clear()
                yield _parse(number, body, 0, len(body))
                break
            piece = data[position : position + wanted - len(held)]
            if not piece:
                return
            held += piece
            position += len(piece)
        while len(data) - position >= HEADER.size:
            end = _frame_end(data, position)
            if end > len(data):
                break
            yield _parse(data[position], data, position + HEADER.size, end)
            position = end
        held += data[position:]

    def finish(self) -> None:
        """`StreamError` if the stream ended within a frame."""
        if self._held:
            raise StreamError("The stream ends within a frame.")


def _frame_end(data: bytes | bytearray, start: int) -> int:
    number, length = HEADER.unpack_from(data, start)
    if (number not in _PARSERS and number not in _IN_PLACE) or length > MAX_FRAME:
        raise StreamError("The stream holds something that is no frame.")
    return int(start + HEADER.size + length)


def _parse(number: int, data: bytes | bytearray, begin: int, end: int) -> Frame:
    """The frame whose body ``data`` has from ``begin`` to ``end``."""
    try:
        if (parse := _IN_PLACE.get(number)) is not None:
            return parse(data, begin, end)
        return _PARSERS[number](bytes(data[begin:end]))
    except struct.error as error:
        raise StreamError("A frame is cut short.") from error


def _take_named(body: bytes) -> tuple[bytes, Entry, bytes]:
    """The name and the entry a body begins with, and what follows."""
    middle = 1 + body[0] if body else 1
    (length,) = _U32.unpack_from(body, middle)
    start = middle + _U32.size
    end = start + length
    if end > len(body):
        raise StreamError("A frame is cut short.")
    return body[1:middle], decode(body[start:end]), body[end:]


def _take_only(body: bytes, *kinds: Kind) -> tuple[bytes, Entry]:
    """The checked name and the entry, of one of ``kinds``, that are all of a body."""
    name, entry, rest = _take_named(body)
    if rest or entry.kind not in kinds:
        raise _misfit()
    check_name(name)
    return name, entry


def _take_file(body: bytes) -> tuple[bytes, Entry, bytes]:
    """The checked name and the entry of a file, and what follows."""
    name, entry, rest = _take_named(body)
    if entry.kind is not Kind.FILE:
        raise _misfit()
    check_name(name)
    return name, entry, rest


def _misfit() -> StreamError:
    return StreamError("A frame holds what its type does not have.")


def _enter(body: bytes) -> Enter:
    name, entry, rest = _take_named(body)
    if rest or entry.kind is not Kind.DIRECTORY:
        raise _misfit()
    if name:
        check_name(name)
    return Enter(name, entry)


def _enter_unchanged(body: bytes) -> Enter:
    if body:
        check_name(body)
    return Enter(body, None)


def _leave(body: bytes) -> Leave:
    if body:
        raise _misfit()
    return Leave()


def _file(data: bytes | bytearray, begin: int, end: int) -> File:
    at = begin + 1 + data[begin] if begin < end else end
    (length,) = _U32.unpack_from(data, at)
    at += _U32.size + length
    name, entry, _ = _take_file(bytes(data[begin : min(at, end)]))
    if end - at != entry.size or end - at > SMALL:
        raise _misfit()
    return File(name, entry, memoryview(data)[at:end])


def _file_follows(body: bytes) -> File:
    name, entry, rest = _take_file(body)
    if rest:
        raise _misfit()
    return File(name, entry, None)


def _copy(body: bytes) -> Copy:
    name, entry, rest = _take_file(body)
    digest, source = rest[:DIGEST_BYTES], rest[DIGEST_BYTES:]
    check_path(source)
    return Copy(name, entry, digest, source)


def _delete(body: bytes) -> Delete:
    check_name(body)
    return Delete(body)


def _data(data: bytes | bytearray, begin: int, end: int) -> Data:
    at = begin + _U64.size
    if not 0 < end - at <= MAX_DATA:
        raise _misfit()
    (offset,) = _U64.unpack_from(data, begin)
    if offset + end - at > MAX_SIZE:
        raise _misfit()
    return Data(offset, memoryview(data)[at:end])


def _hole(body: bytes) -> Hole:
    offset, length = _EXTENT.unpack(body)
    if not length or offset + length > MAX_SIZE:
        raise _misfit()
    return Hole(offset, length)


def _eof(body: bytes) -> Eof:
    if len(body) != DIGEST_BYTES:
        raise _misfit()
    return Eof(body)


def _control(body: bytes) -> Control:
    try:
        message = json.loads(body.decode("ascii"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise StreamError("A message is not JSON.") from error
    if not isinstance(message, dict):
        raise StreamError("A message is not a JSON object.")
    return Control(message)


def _no_number(text: str) -> float:
    # Python's reader takes NaN and Infinity, which JSON does not have.
    raise ValueError(text)


def _pairs(body: bytes) -> Pairs:
    pairs: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(body):
        (length,) = _U32.unpack_from(body, position)
        middle = position + _U32.size + length
        position = middle + SIGNATURE_BYTES
        if position > len(body) or len(pairs) == MAX_PAIRS:
            raise _misfit()
        path = body[middle - length : middle]
        if path:
            check_path(path)
        pairs.append((path, body[middle:position]))
    return Pairs(pairs)


#: For most bytes that travel: these are not given the body by itself, as copies cost.
_IN_PLACE: dict[int, Callable[[bytes | bytearray, int, int], Frame]] = {
    Number.FILE: _file,
    Number.DATA: _data,
}

_PARSERS: dict[int, Callable[[bytes], Frame]] = {
    Number.ENTER: _enter,
    Number.ENTER_UNCHANGED: _enter_unchanged,
    Number.LEAVE: _leave,
    Number.FILE_FOLLOWS: _file_follows,
    Number.PATCH: lambda body: Patch(*_take_only(body, Kind.FILE)),
    Number.SAME: lambda body: Same(*_take_only(body, Kind.FILE, Kind.SYMLINK, Kind.FIFO)),
    Number.COPY: _copy,
    Number.NODE: lambda body: Node(*_take_only(body, Kind.SYMLINK, Kind.FIFO, Kind.LINK)),
    Number.DELETE: _delete,
    Number.HOLE: _hole,
    Number.EOF: _eof,
    Number.CONTROL: _control,
    Number.PAIRS: _pairs,
}
