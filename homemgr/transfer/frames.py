"""The stream between two machines: what frames there are, and how they become bytes.

A frame is its type u8, the length of its body u32, big endian, and the body, at most
`MAX_FRAME` bytes. A body that names something begins with the length of the name u8, the
name, the length of the entry u32 and the entry as `codec` writes it. Each type below says
what follows. `decoder.Decoder` makes frames of the bytes again.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from homemgr.errors import StreamError
from homemgr.transfer.codec import SIGNATURE_BYTES, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from homemgr.transfer.entry import Entry

#: The longest body.
MAX_FRAME = 2 << 20

#: The largest file that travels whole in its `File`.
SMALL = 64 << 10

#: The most bytes of one `Data`.
MAX_DATA = 256 << 10

#: The most pairs of one `Pairs`.
MAX_PAIRS = 4000


#: Of a file: as it was read, or as it lies in what arrived.
Content = bytes | memoryview


class Enter(NamedTuple):
    """Go into directory ``name`` of the current one; without ``entry`` its metadata is as it was.

    The name of the top is empty: whether this is the first is for the receiver to check.
    """

    name: bytes
    entry: Entry | None


class Leave(NamedTuple):
    """Back to the directory that holds the current one."""


class File(NamedTuple):
    """A file whose content is ``data``, without holes, at most `SMALL`.

    Without ``data`` the content follows as `Data`, holes left out or told by `Hole`, to `Eof`,
    which has the digest. That of ``data`` is not sent: both sides have it in the digest of
    the whole tree that they compare in the end.
    """

    name: bytes
    entry: Entry
    data: Content | None


class Patch(NamedTuple):
    """A file that is there and changes: whole blocks follow as `Data` and `Hole`, to `Eof`."""

    name: bytes
    entry: Entry


class Same(NamedTuple):
    """A file, symbolic link or fifo whose content stays and whose metadata is ``entry``."""

    name: bytes
    entry: Entry


class Copy(NamedTuple):
    """A file whose content, of ``digest``, is that of the file at path ``source``."""

    name: bytes
    entry: Entry
    digest: bytes
    source: bytes


class Node(NamedTuple):
    """A symbolic link, a fifo, or a further name of a file."""

    name: bytes
    entry: Entry


class Delete(NamedTuple):
    """Whatever ``name`` is goes, with all below it."""

    name: bytes


class Data(NamedTuple):
    """1 to `MAX_DATA` bytes of content at ``offset``; the body: offset u64, data."""

    offset: int
    data: Content


class Hole(NamedTuple):
    """``length`` bytes of content at ``offset`` that are not stored; the body: both u64."""

    offset: int
    length: int


class Eof(NamedTuple):
    """The end of a content, and its digest."""

    digest: bytes


class Control(NamedTuple):
    """What the two sides tell each other: a JSON object."""

    message: dict[str, object]


class Pairs(NamedTuple):
    """Paths and signatures of what the receiver has: length of path u32, path, signature each.

    An empty one is the last.
    """

    pairs: list[tuple[bytes, bytes]]


Frame = (
    Enter | Leave | File | Patch | Same | Copy | Node | Delete | Data | Hole | Eof | Control | Pairs
)

_U8 = struct.Struct("B")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_EXTENT = struct.Struct(">QQ")


class Number(IntEnum):
    """The type of a frame on the wire."""

    ENTER = 1
    ENTER_UNCHANGED = 2
    LEAVE = 3
    FILE = 4
    FILE_FOLLOWS = 5
    PATCH = 6
    SAME = 7
    COPY = 8
    NODE = 9
    DELETE = 10
    DATA = 11
    HOLE = 12
    EOF = 13
    CONTROL = 14
    PAIRS = 15


#: What precedes a body: type and length.
HEADER = struct.Struct(">BI")


def pack(frame: Frame) -> bytes:
    """The bytes of one frame; `StreamError` if it is longer than one may be."""
    return b"".join(parts(frame))


def parts(frame: Frame) -> tuple[Content, ...]:
    """Like `pack`, in pieces for writev(2), content among them uncopied."""
    return _PARTS[type(frame)](frame)


def _enter(frame: Enter) -> tuple[Content, ...]:
    name, entry = frame
    if entry is None:
        return _framed(Number.ENTER_UNCHANGED, name)
    return _framed(Number.ENTER, _named(name, entry))


def _file(frame: File) -> tuple[Content, ...]:
    name, entry, data = frame
    head = _named(name, entry)
    if data is None:
        return _framed(Number.FILE_FOLLOWS, head)
    return _framed(Number.FILE, head, data)


def _control(frame: Control) -> tuple[Content, ...]:
    text = json.dumps(frame.message, separators=(",", ":"))
    return _framed(Number.CONTROL, text.encode("ascii"))


#: By type: there is one of them for each file of a home.
_PARTS: dict[type, Callable[[Any], tuple[Content, ...]]] = {
    Enter: _enter,
    Leave: lambda _: _framed(Number.LEAVE),
    File: _file,
    Patch: lambda patch: _framed(Number.PATCH, _named(*patch)),
    Same: lambda same: _framed(Number.SAME, _named(*same)),
    Copy: lambda copy: _framed(Number.COPY, _named(*copy[:2]), *copy[2:]),
    Node: lambda node: _framed(Number.NODE, _named(*node)),
    Delete: lambda delete: _framed(Number.DELETE, delete.name),
    Data: lambda data: _framed(Number.DATA, _U64.pack(data.offset), data.data),
    Hole: lambda hole: _framed(Number.HOLE, _EXTENT.pack(*hole)),
    Eof: lambda eof: _framed(Number.EOF, eof.digest),
    Control: _control,
    Pairs: lambda pairs: _framed(Number.PAIRS, *(_pair(*pair) for pair in pairs.pairs)),
}


def in_frames(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[Pairs]:
    """All ``pairs``, grouped as they fit in frames, and the empty frame at the end."""
    group: list[tuple[bytes, bytes]] = []
    length = 0
    for path, mark in pairs:
        more = _U32.size + len(path) + SIGNATURE_BYTES
        if len(group) == MAX_PAIRS or length + more > MAX_FRAME:
            yield Pairs(group)
            group, length = [], 0
        group.append((path, mark))
        length += more
    if group:
        yield Pairs(group)
    yield Pairs([])


def _framed(number: int, *body: Content) -> tuple[Content, ...]:
    length = sum(map(len, body))
    if length > MAX_FRAME:
        raise StreamError(f"A frame of {length} bytes is too long to be sent.")
    return (HEADER.pack(number, length), *body)


def _named(name: bytes, entry: Entry) -> bytes:
    data = encode(entry)
    return _U8.pack(len(name)) + name + _U32.pack(len(data)) + data


def _pair(path: bytes, mark: bytes) -> bytes:
    return _U32.pack(len(path)) + path + mark
