"""Digests of content: holes count, the way it was read does not."""

from __future__ import annotations

import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import StreamError
from homemgr.transfer import content
from homemgr.transfer.content import (
    BLOCK_BYTES,
    HOLE,
    MAX_BLOCKS,
    ContentDigest,
    block_bytes,
    block_count,
    changed_blocks,
    digest_small,
)

Runs = list[tuple[int, bytes]]

#: Blocks that hypothesis can fill.
WIDTH = 16


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> object:
    """Blocks of `WIDTH` bytes, at most 64 of them, in all tests that do not want the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "BLOCK_BYTES", WIDTH)
        patch.setattr(content, "MAX_BLOCKS", 64)
        yield


def by_definition(size: int, runs: Runs) -> tuple[bytes, bytes]:
    """The digest as the module's docstring has it, from a picture of the whole file."""
    width = content.block_bytes(size)
    stored: list[int | None] = [None] * size
    for offset, data in runs:
        stored[offset : offset + len(data)] = data
    blocks = b""
    for start in range(0, size, width):
        text, run = b"", b""
        block = [*stored[start : start + width], None]
        for at, byte in enumerate(block):
            if byte is not None:
                run += bytes([byte])
            elif run:
                text += run + struct.pack(">QQ", at - len(run), len(run))
                run = b""
        blocks += blake3(text).digest()
    return blake3(struct.pack(">Q", size) + blocks).digest(), blocks


def digest(size: int, runs: Runs, base: bytes = b"") -> tuple[bytes, bytes]:
    taken = ContentDigest(size, base)
    for offset, data in runs:
        taken.data(offset, data)
    return taken.finish()


@st.composite
def files(draw: st.DrawFn) -> tuple[int, Runs]:
    """A size and what is stored, in pieces that may touch each other but do not overlap."""
    size = draw(st.integers(0, 5 * WIDTH))
    runs: Runs = []
    at = 0
    while at < size and draw(st.booleans()):
        at += draw(st.integers(0, size - at))
        data = draw(st.binary(max_size=size - at))
        runs.append((at, data))
        at += len(data)
    return size, runs


@given(files())
def test_digest_is_that_of_the_definition(file: tuple[int, Runs]) -> None:
    assert digest(*file) == by_definition(*file)


@given(files(), st.lists(st.integers(1, 3 * WIDTH)))
def test_pieces_make_no_difference(file: tuple[int, Runs], cuts: list[int]) -> None:
    size, runs = file
    pieces: Runs = []
    for offset, data in runs:
        for cut in cuts:
            pieces.append((offset, data[:cut]))
            offset, data = offset + len(data[:cut]), data[cut:]
        pieces.append((offset, data))
    assert digest(size, pieces) == digest(size, runs)


@given(st.binary(max_size=WIDTH))
def test_small_file_has_the_same_digest_the_short_way(data: bytes) -> None:
    assert digest_small(data) == digest(len(data), [(0, data)])[0]


def test_zeros_are_no_hole() -> None:
    assert digest(WIDTH, [(0, bytes(WIDTH))]) != digest(WIDTH, [])
    assert digest(WIDTH, [])[1] == HOLE


def test_boundary_between_runs_counts() -> None:
    joined, apart = [(0, b"ab")], [(0, b"a"), (2, b"b")]
    assert digest(3, joined)[0] != digest(3, apart)[0]


@pytest.mark.parametrize(
    "runs",
    [[(4, b"ab"), (5, b"c")], [(4, b"ab"), (0, b"c")], [(9, b"ab")], [(-1, b"a")], [(11, b"")]],
)
def test_content_that_goes_back_or_beyond_is_refused(runs: Runs) -> None:
    with pytest.raises(StreamError):
        digest(10, runs)


@pytest.mark.parametrize("hole", [(1, 2), (4, 7), (5, -1)])
def test_hole_that_goes_back_or_beyond_is_refused(hole: tuple[int, int]) -> None:
    taken = ContentDigest(10)
    taken.data(0, b"ab")
    with pytest.raises(StreamError):
        taken.hole(*hole)
    taken.hole(2, 8)


@given(files(), files())
def test_patch_of_the_changed_blocks_has_the_digest_of_the_new_file(
    old: tuple[int, Runs], new: tuple[int, Runs]
) -> None:
    before, after = digest(*old)[1], digest(*new)
    changed = changed_blocks(before, after[1], old[0], new[0])
    patch = ContentDigest(new[0], before)
    for block in changed:
        start, end = block * WIDTH, min((block + 1) * WIDTH, new[0])
        at = start
        for offset, data in new[1]:
            piece = data[max(0, start - offset) : max(0, end - offset)]
            if piece and offset < end:
                first = max(offset, start)
                if at < first:
                    patch.hole(at, first - at)
                patch.data(first, piece)
                at = first + len(piece)
        if at < end:
            patch.hole(at, end - at)
    assert patch.finish() == after


@given(files())
def test_nothing_is_changed_in_the_same_file(file: tuple[int, Runs]) -> None:
    blocks = digest(*file)[1]
    assert changed_blocks(blocks, blocks, file[0], file[0]) == []
    assert digest(file[0], [], blocks)[1] == blocks


def test_file_that_only_got_a_hole_at_its_end_needs_nothing() -> None:
    data = [(0, b"x" * WIDTH)]
    old, new = digest(WIDTH, data)[1], digest(3 * WIDTH, data)[1]
    assert changed_blocks(old, new, WIDTH, 3 * WIDTH) == []


def test_all_is_changed_where_blocks_have_another_length() -> None:
    size = 65 * WIDTH
    old, new = digest(WIDTH, [])[1], digest(size, [])[1]
    assert block_count(size) == 33
    assert changed_blocks(old, new, WIDTH, size) == list(range(33))


@pytest.mark.parametrize(
    ("size", "width"),
    [
        (0, BLOCK_BYTES),
        (1, BLOCK_BYTES),
        (BLOCK_BYTES * MAX_BLOCKS, BLOCK_BYTES),
        (BLOCK_BYTES * MAX_BLOCKS + 1, 2 * BLOCK_BYTES),
        (2 * BLOCK_BYTES * MAX_BLOCKS, 2 * BLOCK_BYTES),
        (3 * BLOCK_BYTES * MAX_BLOCKS, 4 * BLOCK_BYTES),
        ((1 << 63) - 1, 1 << 50),
    ],
)
def test_blocks_grow_with_the_file(size: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(content, "MAX_BLOCKS", MAX_BLOCKS)
    assert block_bytes(size) == width
    assert block_count(size) <= MAX_BLOCKS
    assert block_count(size) * width >= size


def test_largest_hole_costs_its_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(content, "MAX_BLOCKS", MAX_BLOCKS)
    blocks = digest((1 << 63) - 1, [((1 << 63) - 2, b"x")])[1]
    assert blocks[:-32] == HOLE * (MAX_BLOCKS - 1)
    assert blocks[-32:] == blake3(b"x" + struct.pack(">QQ", (1 << 50) - 2, 1)).digest()
