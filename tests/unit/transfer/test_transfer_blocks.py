"""The digest of one block, made apart from the others, is the one in the digest of the content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homemgr.transfer import content


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 7)), max_size=4))
def test_blocks_made_apart_are_those_of_the_whole(pieces: list[tuple[int, int]]) -> None:
    width, at, runs = content.BLOCK_BYTES, 0, []
    for gap, length in pieces:
        # A gap between any two: they are runs, not one.
        at += (gap + 1) * 1000
        runs.append((at, bytes([length]) * length * 1000))
        at += length * 1000
    size = at + 10
    state = content.ContentDigest(size)
    for offset, data in runs:
        state.data(offset, data)
    digest, blocks = state.finish()
    for number in range(content.block_count(size)):
        start = number * width
        within = [
            (max(offset, start) - start, data[max(0, start - offset) : start + width - offset])
            for offset, data in runs
            if offset < start + width and offset + len(data) > start
        ]
        assert content.nth_block(blocks, number) == content.block_digest(within)
    assert content.nth_block(blocks, content.block_count(size)) == content.HOLE
    assert content.of_blocks(size, blocks) == digest
