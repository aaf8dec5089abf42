"""Reads the archives of `tar`, also after GNU tar or bsdtar packed them again as pax.

Incremental: bytes in, `Member`, `Data` and `End` out. `StreamError` on everything that is
no export of a home: paths that lead elsewhere, members that come twice, below something
that is no directory, or with links to what did not come, other types, damaged headers,
other formats of sparse files, too many pieces or records, data after the end. Members
are remembered in 16 to 32 bytes each, see `seen`.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from homemgr.errors import StreamError
from homemgr.transfer.entry import Entry, Kind, check_path, split
from homemgr.transfer.frames import MAX_DATA, Data
from homemgr.transfer.seen import Seen, Sort
from homemgr.transfer.tar import BLOCK, HOME, MANIFEST, MAX_EXTENTS, MAX_RECORDS, RECORD
from homemgr.transfer.tar_header import (
    Described,
    Records,
    describe,
    number,
    parse_header,
    parse_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Member(NamedTuple):
    """A file or directory. `Data` and `End` follow if it is a `Kind.FILE`.

    ``document`` is `tar.RECORD` or `tar.MANIFEST` for these, and empty for ``path`` in the home.
    """

    document: bytes
    path: bytes
    entry: Entry


class End(NamedTuple):
    """The end of the content of a file."""


Event = Member | Data | End

_T = TypeVar("_T")

#: What parses step by step: gives events, None for want of bytes, and at its end a result.
Steps = Generator[Event | None, None, _T]

#: What may come after what; at first there was nothing.
_AFTER: dict[bytes, tuple[bytes, ...]] = {
    b"": (RECORD,),
    RECORD: (HOME,),
    HOME: (HOME, MANIFEST),
    MANIFEST: (),
}


class Reader:
    """Bytes of an archive as they come to its members."""

    def __init__(self) -> None:
        """Begin at the start of an archive."""
        self._buffer = bytearray()
        self._seen = Seen()
        self._is_complete = False
        self._events = self._parse()

    def feed(self, data: bytes) -> Iterator[Event]:
        """All that ends in ``data``, content as it comes; take the last before feeding more.

        After a `StreamError` nothing comes any more.
        """
        self._buffer += data
        for event in self._events:
            if event is None:
                return
            yield event

    def finish(self) -> None:
        """`StreamError` if the archive ended too early."""
        if not self._is_complete:
            raise StreamError("The archive is cut short.")

    # --- members ------------------------------------------------------------------------

    def _parse(self) -> Steps[None]:
        part = b""
        while (described := (yield from self._head())) is not None:
            member = _member(described)
            following = member.document or HOME
            if following not in _AFTER[part]:
                raise StreamError("The parts of the archive are not in order.")
            part = following
            if part == HOME:
                self._place(member)
            yield member
            if member.entry.kind == Kind.FILE:
                yield from self._content(described)
        if part != MANIFEST:
            raise StreamError("The archive ends before its manifest.")
        self._is_complete = True
        while not any(self._buffer):
            self._buffer.clear()
            yield None
        self._is_complete = False
        raise StreamError("The archive goes on after its end.")

    def _head(self) -> Steps[Described | None]:
        """The next member; None at the end."""
        block = yield from self._take(BLOCK)
        if not any(block):
            if any((yield from self._take(BLOCK))):
                raise StreamError("The end of the archive is damaged.")
            return None
        header = parse_header(block)
        records: Records = {}
        if header.type == b"x":
            if not 0 < header.length <= MAX_RECORDS:
                raise StreamError("A member of the archive has too many records.")
            text = yield from self._take(header.length + -header.length % BLOCK)
            records = parse_records(text[: header.length])
            header = parse_header((yield from self._take(BLOCK)))
        return describe(header, records)

    def _place(self, member: Member) -> None:
        """Remember a member of the home, unless it cannot be where it says."""
        path, entry = member.path, member.entry
        if not path:
            is_possible = entry.kind == Kind.DIRECTORY
        else:
            is_possible = self._seen.sort_of(split(path)[0]) == Sort.DIRECTORY
        if entry.kind == Kind.LINK:
            is_possible = is_possible and self._seen.sort_of(entry.target) == Sort.OTHER
        sort = Sort.DIRECTORY if entry.kind == Kind.DIRECTORY else Sort.OTHER
        if not is_possible or not self._seen.add(path, sort):
            raise StreamError(f"{path[:255]!r} cannot be at this place in the archive.")

    # --- content ------------------------------------------------------------------------

    def _content(self, described: Described) -> Steps[None]:
        length = described.length
        pieces: Iterable[tuple[int, int]] = ((0, length),)
        if described.is_sparse:
            pieces = yield from self._pieces(described.entry.size, length)
        for start, size in pieces:
            offset, end = start, start + size
            while offset < end:
                data = yield from self._some(min(end - offset, MAX_DATA))
                yield Data(offset, data)
                offset += len(data)
        yield from self._take(-length % BLOCK)
        yield End()

    def _pieces(self, size: int, length: int) -> Steps[Iterable[tuple[int, int]]]:
        """Offset and length of each piece of a sparse file, from the list before its data.

        The list is numbers on lines, padded to whole blocks: how many pieces, then each.
        """
        numbers = array("Q")
        count, rest = 1, b""
        while len(numbers) < count:
            length -= BLOCK
            if length < 0 or len(rest) > BLOCK:
                raise _damaged_pieces()
            *lines, rest = (rest + (yield from self._take(BLOCK))).split(b"\n")
            numbers.extend(map(number, lines))
            if numbers:
                count = 1 + 2 * numbers[0]
            if not len(numbers) <= count <= 1 + 2 * MAX_EXTENTS:
                raise _damaged_pieces()
        offsets, lengths = numbers[1::2], numbers[2::2]
        end = 0
        for offset, more in zip(offsets, lengths, strict=True):
            if offset < end:
                raise _damaged_pieces()
            end = offset + more
        if end > size or sum(lengths) != length:
            raise _damaged_pieces()
        return zip(offsets, lengths, strict=True)

    # --- bytes --------------------------------------------------------------------------

    def _take(self, length: int) -> Steps[bytes]:
        """Exactly ``length`` bytes."""
        while len(self._buffer) < length:
            yield None
        return self._cut(length)

    def _some(self, most: int) -> Steps[bytes]:
        """What there is, at least one byte and at most ``most``."""
        while not self._buffer:
            yield None
        return self._cut(most)

    def _cut(self, length: int) -> bytes:
        with memoryview(self._buffer) as view:
            data = bytes(view[:length])
        del self._buffer[:length]
        return data


def _member(described: Described) -> Member:
    """Where in the archive it is; `StreamError` if that is no part of an export."""
    name, entry = described.name, described.entry
    if name in (RECORD, MANIFEST) and entry.kind == Kind.FILE:
        return Member(name, b"", entry)
    path = _in_home(name)
    if entry.kind == Kind.LINK:
        entry = entry._replace(target=_in_home(entry.target))
    return Member(b"", path, entry)


def _in_home(name: bytes) -> bytes:
    check_path(name)
    first, _, path = name.partition(b"/")
    if first != HOME:
        raise StreamError(f"{name[:255]!r} is no part of an exported home.")
    return path


def _damaged_pieces() -> StreamError:
    return StreamError("The pieces of a sparse file in the archive are damaged.")
