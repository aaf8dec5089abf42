"""The digest of a file's content, block by block, that sees holes and not how it was read.

A file is blocks of `block_bytes` of its size; the last may be shorter. In a block, data
that are adjacent are one run. The digest of a block is BLAKE3 over, for each of its runs
in order: the data, then their offset in the block and their length, each u64, big endian.
(Read from the end this is unambiguous, and written in this order each byte is hashed as
it comes.) A block that is all hole has no run: `HOLE`. The digest of the content is
BLAKE3 over the size, u64 big endian, and the digests of all blocks.

BLAKE3 with 32 bytes (the BLAKE3 paper, 2020), as strong as SHA-256: each byte of a home is
digested at both ends, and with SHA-256 that was a tenth of a first copy, on processors that
have instructions for it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blake3 import blake3

from homemgr.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The smallest block: what is sent again if one byte in it changes.
BLOCK_BYTES = 128 << 10

#: The most blocks of a file: their digests are kept and compared in memory.
MAX_BLOCKS = 8192

#: Length of each digest.
DIGEST_BYTES = 32

#: The digest of a block without data.
HOLE = blake3().digest()

_RUN = struct.Struct(">QQ")
_SIZE = struct.Struct(">Q")


def block_bytes(size: int) -> int:
    """Length of the blocks of a file of ``size`` bytes: `BLOCK_BYTES`, doubled until they do."""
    blocks = -(-size // (BLOCK_BYTES * MAX_BLOCKS))
    return BLOCK_BYTES << max(0, blocks - 1).bit_length()


def block_count(size: int) -> int:
    """How many blocks a file of ``size`` bytes has."""
    return -(-size // block_bytes(size))


def digest_small(data: bytes | memoryview) -> bytes:
    """The digest of a file of one block, at most `BLOCK_BYTES`, that is ``data`` without holes."""
    if not data:
        return blake3(_SIZE.pack(0)).digest()
    length = len(data)
    block = blake3(data)
    block.update(_RUN.pack(0, length))
    return blake3(_SIZE.pack(length) + block.digest()).digest()


def changed_blocks(old: bytes, new: bytes, size_old: int, size_new: int) -> list[int]:
    """The blocks of the new file to send to who has the old one, by their digests ``old``, ``new``.

    All of them if the sizes are so different that the blocks are.
    """
    width = block_bytes(size_new)
    count = block_count(size_new)
    if block_bytes(size_old) != width:
        return list(range(count))
    # Beyond the end of the old file a file that is made longer has holes.
    old += HOLE * (count - block_count(size_old))
    return [
        block
        for block, at in enumerate(range(0, count * DIGEST_BYTES, DIGEST_BYTES))
        if new[at : at + DIGEST_BYTES] != old[at : at + DIGEST_BYTES]
    ]


def block_digest(runs: Iterable[tuple[int, bytes]]) -> bytes:
    """The digest of one block, from its runs: offset in the block, and data."""
    state = blake3()
    for offset, data in runs:
        state.update(data)
        state.update(_RUN.pack(offset, len(data)))
    return state.digest()


def nth_block(blocks: bytes, number: int) -> bytes:
    """The digest of a block out of those of all; that of a hole beyond the last."""
    return blocks[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] or HOLE


def of_blocks(size: int, blocks: bytes) -> bytes:
    """The digest of a content of ``size`` bytes, from those of its blocks."""
    return blake3(_SIZE.pack(size) + blocks).digest()


class ContentDigest:
    """Takes the data of a file from its beginning to its end; what is left out is a hole.

    With ``base``, the digests of the blocks of a file of blocks of the same length, it is a
    patch: blocks that neither `data` nor `hole` touch are those of ``base``, or holes beyond
    its end, and of a block that is touched everything is given.
    """

    def __init__(self, size: int, base: bytes = b"") -> None:
        """Begin a file of ``size`` bytes."""
        self._size = size
        self._width = block_bytes(size)
        self._base = base
        #: Digests of the blocks that are complete.
        self._blocks = bytearray()
        #: What comes must not lie before this.
        self._offset = 0
        #: The block begun, if any: its hash, where it starts, where its last run starts and ends.
        self._hash: blake3 | None = None
        self._start = self._run_start = self._run_end = 0

    def data(self, offset: int, data: bytes | memoryview) -> None:
        """Take ``data`` at ``offset``; `StreamError` if before the last or beyond the end."""
        end = self._advance(offset, len(data))
        if offset // self._width == (end - 1) // self._width:
            self._take(offset, data)
            return
        view = memoryview(data)
        while view:
            room = self._width - offset % self._width
            self._take(offset, view[:room])
            view = view[room:]
            offset += room

    def hole(self, offset: int, length: int) -> None:
        """Take a hole; needed in a patch only. `StreamError` like `data`."""
        end = self._advance(offset, length)
        if self._base:
            for block in range(offset // self._width, -(-end // self._width)):
                self._reach(block)

    def finish(self) -> tuple[bytes, bytes]:
        """The digest of the content, and those of all blocks one after the other.

        `StreamError` if a patch tells a part of a block.
        """
        self._require_whole(self._offset)
        self._close_block()
        self._keep_until(block_count(self._size))
        blocks = bytes(self._blocks)
        return of_blocks(self._size, blocks), blocks

    def _advance(self, offset: int, length: int) -> int:
        end = offset + length
        if offset < self._offset or length < 0 or end > self._size:
            raise StreamError("The content of a file goes back, or beyond its end.")
        if offset != self._offset:
            self._require_whole(self._offset)
            self._require_whole(offset)
        self._offset = end
        return end

    def _require_whole(self, offset: int) -> None:
        """In a patch raise StreamError for a place within a block.

        What is there from before would stay, where the digest has a hole.
        """
        if self._base and offset % self._width and offset != self._size:
            raise StreamError("A patch tells a part of a block only.")

    def _take(self, offset: int, data: bytes | memoryview) -> None:
        """Hash data that are not empty and lie within one block."""
        if not data:
            return
        block = self._reach(offset // self._width)
        if offset != self._run_end:
            self._close_run()
            self._run_start = offset
        block.update(data)
        self._run_end = offset + len(data)

    def _reach(self, block: int) -> blake3:
        """The hash of ``block``, which is begun unless it was."""
        start = block * self._width
        if self._hash is None or start != self._start:
            self._close_block()
            self._keep_until(block)
            self._hash = blake3()
            self._start = self._run_start = self._run_end = start
        return self._hash

    def _close_run(self) -> None:
        length = self._run_end - self._run_start
        if self._hash is not None and length:
            self._hash.update(_RUN.pack(self._run_start - self._start, length))

    def _close_block(self) -> None:
        self._close_run()
        if self._hash is not None:
            self._blocks += self._hash.digest()
            self._hash = None

    def _keep_until(self, block: int) -> None:
        """Complete all blocks before ``block`` that nothing was said of."""
        at, end = len(self._blocks), block * DIGEST_BYTES
        kept = self._base[at:end]
        self._blocks += kept + HOLE * ((end - at - len(kept)) // DIGEST_BYTES)
