"""Chunks: what went in comes out, dense pieces as they are, and nothing malformed at all."""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import StreamError
from homemgr.transfer.chunks import (
    HEAD_BYTES,
    MAX_CHUNK,
    PACKED,
    PLAIN,
    THE_END,
    Packer,
    Unpacker,
    head,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LARGE = 256 << 10
DENSE = random.Random(1).randbytes(3 * MAX_CHUNK)
TEXT = b"All of it is said again and again, and again. " * (3 * MAX_CHUNK // 40)


def packed(packer: Packer, *pieces: bytes, is_urgent: bool = True) -> bytes:
    return b"".join(b"".join(one) for one in packer.pack(pieces, is_urgent=is_urgent))


def chunks(stream: bytes) -> list[tuple[int, bytearray]]:
    found = []
    while stream:
        kind, length = Unpacker.begun(stream[:HEAD_BYTES])
        found.append((kind, bytearray(stream[HEAD_BYTES:][:length])))
        assert len(found[-1][1]) == length
        stream = stream[HEAD_BYTES + length :]
    return found


def unpacked(unpacker: Unpacker, stream: bytes) -> bytes:
    return b"".join(piece for kind, body in chunks(stream) for piece in unpacker.unpack(kind, body))


SIZES = st.one_of(st.integers(0, 300), st.sampled_from([32 << 10, 65535, 65536, LARGE, 2 << 20]))
PIECES = st.builds(lambda source, start, size: source[start:][:size],
                   st.sampled_from([DENSE, TEXT]), st.integers(0, 1000), SIZES)  # fmt: skip


@given(st.lists(st.tuples(st.lists(PIECES, max_size=6), st.booleans()), max_size=4))
def test_all_comes_out_in_order_and_what_is_urgent_at_once(
    batches: list[tuple[list[bytes], bool]],
) -> None:
    packer, unpacker = Packer(), Unpacker()
    given_so_far = taken = b""
    for pieces, is_urgent in [*batches, ([], True)]:
        given_so_far += b"".join(pieces)
        taken += unpacked(unpacker, packed(packer, *pieces, is_urgent=is_urgent))
        assert given_so_far.startswith(taken)
        assert taken == given_so_far or not is_urgent


def test_what_nothing_makes_smaller_travels_as_it_is() -> None:
    piece = DENSE[:LARGE]
    # The head of its frame goes with it, what is longer is packed before.
    assert chunks(packed(Packer(), b"head", piece, b"next", piece, is_urgent=False)) == [
        (PLAIN, b"head" + piece),
        (PLAIN, b"next" + piece),
    ]
    before = TEXT[:5000]
    (first, second) = chunks(packed(Packer(), before, piece))
    assert (first[0], second) == (PACKED, (PLAIN, piece))
    assert len(first[1]) < 200


@pytest.mark.parametrize("piece", [TEXT[:LARGE], DENSE[: LARGE // 2] + TEXT[: LARGE // 2]])
def test_what_can_be_made_smaller_is(piece: bytes) -> None:
    found = chunks(packed(Packer(), piece))
    assert {kind for kind, _ in found} == {PACKED}
    assert sum(len(body) for _, body in found) < len(piece) * 0.51


def test_who_has_nothing_says_nothing() -> None:
    packer = Packer()
    assert packed(packer) == b""
    assert packed(packer, b"word") != b""
    assert packed(packer) == b""


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_a_chunk_of_no_known_kind_is_refused(kind: int) -> None:
    with pytest.raises(StreamError, match="no chunk"):
        Unpacker.begun(head(kind, 1))


@pytest.mark.parametrize("length", [0, MAX_CHUNK + 1, 0xFFFFFFFF])
def test_a_length_is_looked_at_before_room_is_made_for_it(length: int) -> None:
    with pytest.raises(StreamError, match="no chunk"):
        Unpacker.begun(head(PLAIN, length))


@pytest.mark.parametrize("whole", [head(PACKED, 1), head(PLAIN, MAX_CHUNK), THE_END])
def test_a_head_with_one_bit_that_is_wrong_is_refused(whole: bytes) -> None:
    for bit in range(8 * HEAD_BYTES):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StreamError, match="no chunk"):
            Unpacker.begun(damaged)


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=2000))
def test_nonsense_is_refused_or_more_is_awaited(nonsense: bytes, words: bytes) -> None:
    unpacker = Unpacker()
    (body,) = [body for _, body in chunks(packed(Packer(), words + b"."))]
    assert b"".join(unpacker.unpack(PACKED, body)) == words + b"."
    with suppress(StreamError):
        b"".join(unpacker.unpack(PACKED, bytearray(nonsense)))


def test_the_stream_has_no_end_and_no_other_behind_it() -> None:
    ended = bytearray(zstd.compress(b"the end") + zstd.compress(b"one more"))
    with pytest.raises(StreamError, match="ends before its end"):
        b"".join(Unpacker().unpack(PACKED, ended))


def test_the_other_side_does_not_choose_how_much_memory_it_takes() -> None:
    options = {int(zstd.CompressionParameter.window_log): 25}
    wide = zstd.ZstdCompressor(options=options)
    with pytest.raises(StreamError, match="damaged"):
        b"".join(Unpacker().unpack(PACKED, bytearray(wide.compress(DENSE, wide.FLUSH_BLOCK))))


def test_a_bomb_goes_off_in_small_pieces() -> None:
    compressor = zstd.ZstdCompressor(level=1)
    bomb = bytearray(compressor.compress(bytes(1 << 26), compressor.FLUSH_BLOCK))
    assert len(bomb) < MAX_CHUNK
    sizes = [len(piece) for piece in Unpacker().unpack(PACKED, bomb)]
    assert sum(sizes) == 1 << 26
    assert max(sizes) <= 512 << 10
