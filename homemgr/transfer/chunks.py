"""What travels between two machines in the place of frames: chunks, packed or as they are.

A chunk is its kind u8, the length of its body u32, big endian, the same with all bits inverted,
and the body, 1 to `MAX_CHUNK` bytes: of a length that is damaged on the way both sides would wait
for each other. The bodies of all `PACKED` chunks are one zstd stream (RFC 8878); it has no end, and
is flushed before another chunk. The body of a `PLAIN` chunk is what it says. Unpacked and one after
the other they are the bytes of `frames`. In the end comes `THE_END`.

Most of what people keep are pictures, films and archives, which nothing makes smaller; to try it
in vain took the threads of the stream, at both ends, as long again as all else that they do.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

from homemgr.errors import StreamError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from homemgr.transfer.frames import Content

PACKED, PLAIN = 1, 2

#: The longest body.
MAX_CHUNK = 1 << 20

_HEAD = struct.Struct(">BII")
HEAD_BYTES = _HEAD.size
_INVERTED = 0xFFFFFFFF


def head(kind: int, length: int) -> bytes:
    """What a chunk begins with."""
    return _HEAD.pack(kind, length, length ^ _INVERTED)


#: In the place of a chunk: nothing follows.
THE_END = head(3, 0)

#: Fast enough for a network of several hundred megabytes a second, and most of the gain. Level 1
#: looks for matches of seven bytes; of five there are more, in text, and they cost no more time.
_COMPRESSION = {
    int(zstd.CompressionParameter.compression_level): 1,
    int(zstd.CompressionParameter.min_match): 5,
}
#: Largest window (as a power of two) that is taken; level 1 uses 2^19.
_WINDOW_LOG = 21
#: What is unpacked is given in pieces of so many bytes at most.
_PIECE_BYTES = 512 << 10

#: Pieces from this size on are packed where they are, smaller ones are put together before.
_LARGE_BYTES = 32 << 10
#: Pieces from this size on are looked at whether they can be made smaller.
_PLAIN_BYTES = 64 << 10
#: So much as it is in front of a piece that travels as it is costs less than packing it.
_LITTLE_BYTES = 256
#: Of a piece so many places of so many bytes each are tried, and count as incompressible if
#: no more than one byte in so many is saved.
_SAMPLES, _SAMPLE_BYTES, _GAIN = 4, 1 << 10, 50

#: What is written together.
Written = list["Content"]


class Packer:
    """Pieces of frames to chunks, for one direction of one stream."""

    def __init__(self) -> None:
        """At the beginning."""
        self._compressor = zstd.ZstdCompressor(options=_COMPRESSION)
        self._probe = zstd.ZstdCompressor(level=1)
        #: Whether something was packed that has not all been given.
        self._is_open = False

    def pack(self, pieces: Iterable[Content], *, is_urgent: bool) -> Iterator[Written]:
        """All ``pieces``, in order; what is not ``is_urgent`` may leave with what comes later."""
        small: list[Content] = []
        for piece in pieces:
            if len(piece) < _LARGE_BYTES:
                small.append(piece)
                continue
            before = b"".join(small)
            small.clear()
            if len(piece) < _PLAIN_BYTES or not self._is_dense(piece):
                yield from self._packed(before)
                yield from self._packed(piece)
                continue
            if self._is_open or len(before) > _LITTLE_BYTES:
                yield from self._packed(before, is_last=True)
                before = b""
            yield from _plain(before, piece)
        yield from self._packed(b"".join(small), is_last=is_urgent)

    def _packed(self, data: Content, *, is_last: bool = False) -> Iterator[Written]:
        """``data`` compressed; with ``is_last`` all that was compressed so far."""
        if not data and not (is_last and self._is_open):
            return
        body = memoryview(
            self._compressor.compress(data, self._compressor.FLUSH_BLOCK)
            if is_last
            else self._compressor.compress(data)
        )
        self._is_open = not is_last
        for start in range(0, len(body), MAX_CHUNK):
            part = body[start : start + MAX_CHUNK]
            yield [head(PACKED, len(part)), part]

    def _is_dense(self, piece: Content) -> bool:
        """Whether some places in ``piece`` look as if nothing could make it smaller."""
        last = len(piece) - _SAMPLE_BYTES
        places = (last * number // (_SAMPLES - 1) for number in range(_SAMPLES))
        sample = b"".join([piece[place : place + _SAMPLE_BYTES] for place in places])
        packed = self._probe.compress(sample, self._probe.FLUSH_FRAME)
        return len(packed) > len(sample) - len(sample) // _GAIN


def _plain(before: bytes, piece: Content) -> Iterator[Written]:
    """``piece`` as it is, after the little ``before``."""
    view = memoryview(piece)
    while view:
        part = view[: MAX_CHUNK - len(before)]
        yield [head(PLAIN, len(before) + len(part)), before, part]
        before, view = b"", view[len(part) :]


class Unpacker:
    """Chunks to the bytes of frames, for one direction of one stream."""

    def __init__(self) -> None:
        """At the beginning."""
        options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
        self._decompressor = zstd.ZstdDecompressor(options=options)

    @staticmethod
    def begun(data: bytes | bytearray) -> tuple[int, int]:
        """Kind and length of the chunk that begins with ``data``, of `HEAD_BYTES`.

        `StreamError` if there is no such chunk.
        """
        kind, length, inverted = _HEAD.unpack(data)
        is_sound = length ^ _INVERTED == inverted and 0 < length <= MAX_CHUNK
        if kind not in (PACKED, PLAIN) or not is_sound:
            raise StreamError("The stream from the other machine holds something that is no chunk.")
        return kind, length

    def unpack(self, kind: int, body: bytearray) -> Iterator[bytes | bytearray]:
        """What a chunk says, piece by piece; `StreamError` if its body is damaged."""
        if kind == PLAIN:
            yield body
            return
        data: bytes | bytearray = body
        while data or not self._decompressor.needs_input:
            try:
                piece = self._decompressor.decompress(data, _PIECE_BYTES)
            except (zstd.ZstdError, EOFError) as error:
                raise StreamError(
                    f"The stream from the other machine is damaged: {error}"
                ) from error
            if self._decompressor.eof:
                raise StreamError("The stream from the other machine ends before its end.")
            if piece:
                yield piece
            data = b""
