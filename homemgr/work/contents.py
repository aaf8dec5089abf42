"""How the content of a file gets to the other side: with as little to send as can be.

It may have the content already, under this name or another one; of a large file that changed
the blocks that differ are sent; otherwise all of it. What is torn because somebody wrote to it
meanwhile is told again from a copy of one moment, where the file system shares blocks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from homemgr.files import Fd
from homemgr.storage import sparse
from homemgr.storage.ledger import Row, proof
from homemgr.transfer import codec, content, frames
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.report import Note, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.ledger import Known
    from homemgr.storage.reader import Step
    from homemgr.work.changes import Changes
    from homemgr.work.tally import Tally


class Shared(NamedTuple):
    """In the place of the content of a file, within one process: the file that has it, open."""

    file: Fd


#: Files above this size are compared block by block when they changed.
PATCHABLE_BYTES = 1 << 20
#: A block is held in memory while it is compared; files with larger blocks are sent whole.
_MAX_BLOCK_BYTES = 64 << 20


class Contents:
    """The files of one pass."""

    def __init__(
        self,
        changes: Changes,
        tally: Tally,
        report: Report,
        still: Callable[[int], Fd | None],
        share: Callable[[Shared], None] | None = None,
    ) -> None:
        """Tell ``changes``; files that do not keep still go into ``report``.

        ``still`` gives the content of an open file as it is at one moment, if that can be had.
        ``share`` takes whole files that do not change, where the other side can open them.
        """
        self._still = still
        self._share = share
        #: Whether the file told of last changed meanwhile.
        self._is_torn = False
        self._changes = changes
        self._ledger = changes.ledger
        self._tally = tally
        self._report = report
        #: Nothing can have moved in a home of which the other side has nothing yet.
        self._may_have_moved = not self._ledger.is_empty()

    def file(self, step: Step, entry: Entry, known: Known | None, fd: int, mine: bytes) -> None:
        """Tell of a file that is new or changed, and open as ``fd``.

        ``known`` is what the other side has there, ``mine`` the proof of what is here.
        """
        self._is_torn = False
        self._file(step, entry, known, fd, mine)
        # A write that had begun before we looked changes the times no more.
        if self._is_torn or not self._changes.lasting(step.stat, mine):
            self._file_again(step, entry, fd)

    def _file_again(self, step: Step, entry: Entry, fd: int) -> None:
        """Tell of a file as it is at one moment; what was told may be of several."""
        times = os.fstat(fd)
        still = self._still(fd)
        # Asked for each file, the ledger would be slower than all the rest of a pass.
        before = None if still is None else self._ledger.get(step.path)
        if still is None or before is None:
            if still is not None:
                still.close()
            if self._is_torn:
                self._report.add(Note("changed-while-read", step.path, ""))
            return
        with still:
            found = os.fstat(still.fileno())
            entry = entry._replace(size=found.st_size, mtime_ns=times.st_mtime_ns)
            self._tally.bytes -= before.entry.size
            if _fits_frame(still.fileno(), found):
                self._small(step, entry, before, still.fileno(), b"")
            elif _is_patchable(before.entry, entry):
                self._patch(step, entry, before, still.fileno(), b"")
            elif self._is_as_before(entry, before, still.fileno()):
                self._same(step, entry, before)
                self._keep(step, entry, before.digest, before.blocks, still.fileno(), b"")
            else:
                self._whole(step, entry, before, still.fileno(), b"")

    def _file(self, step: Step, entry: Entry, known: Known | None, fd: int, mine: bytes) -> None:
        before = None
        if known is not None and known.kind == Kind.FILE:
            before = self._ledger.get(step.path)
        else:
            self._changes.clear(step, known)
        if before is None and self._may_have_moved and (proven := self._moved_unread(step)):
            self._copy(step, entry, proven[1].digest, proven[1].blocks, proven[0], mine)
            if step.stat.st_nlink == 1:
                self._changes.has_moved(proven[0], entry.size)
            return
        if _fits_frame(fd, step.stat):
            self._small(step, entry, before, fd, mine)
        elif before is not None and _is_patchable(before.entry, entry):
            self._patch(step, entry, before, fd, mine)
        elif before is not None and self._is_as_before(entry, before, fd):
            self._same(step, entry, before)
            self._keep(step, entry, before.digest, before.blocks, fd, mine)
        elif before is None and self._may_have_moved and (moved := self._moved_read(step, fd)):
            digest, blocks, source = moved
            self._copy(step, entry, digest, blocks, source, mine)
        else:
            self._whole(step, entry, before, fd, mine)

    def _small(self, step: Step, entry: Entry, before: Row | None, fd: int, mine: bytes) -> None:
        """A file that fits into one frame and has no holes."""
        # One byte more than it should have, so that a file that has grown shows it.
        data = os.pread(fd, entry.size + 1, 0)
        if len(data) != entry.size:
            # It is not as it was listed, or the read was cut short: all of it, if it still fits.
            data = sparse.read_at(fd, frames.SMALL + 1, 0)
        if len(data) > frames.SMALL:
            # It grew since it was looked at.
            self._whole(step, entry._replace(size=step.stat.st_size), before, fd, mine)
            return
        if len(data) != entry.size:
            entry = entry._replace(size=len(data))
        digest = content.digest_small(data)
        if before is not None and before.digest == digest:
            self._same(step, entry, before)
        else:
            self._changes.renew(step, frames.File(step.name, entry, data))
        self._keep(step, entry, digest, b"", fd, mine)

    def _is_as_before(self, entry: Entry, before: Row, fd: int) -> bool:
        """Whether the content is the one the other side has, to be found by reading it."""
        if entry.size != before.entry.size:
            return False
        return self._read(fd, entry.size, is_sent=False)[0] == before.digest

    def _same(self, step: Step, entry: Entry, before: Row) -> None:
        """The content is there; tell what else changed, if anything."""
        if codec.signature(before.entry, before.digest) != codec.signature(entry, before.digest):
            self._changes.tell(frames.Same(step.name, entry))

    def _whole(self, step: Step, entry: Entry, before: Row | None, fd: int, mine: bytes) -> None:
        """Send all of a file; its digest is known only after it was read."""
        self._changes.renew(step, frames.File(step.name, entry, None))
        if self._share is not None:
            # A descriptor of its own: it is read when this one may be closed already.
            self._share(Shared(Fd(os.dup(fd))))
        digest, blocks = self._read(fd, entry.size, is_sent=self._share is None)
        self._changes.send(frames.Eof(digest))
        self._keep(step, entry, digest, blocks, fd, mine)

    def _read(self, fd: int, size: int, *, is_sent: bool) -> tuple[bytes, bytes]:
        """Digest of a file's content, and of its blocks; sends it on the way if asked."""
        state = content.ContentDigest(size)
        for at, data in sparse.data_pieces(fd, size, frames.MAX_DATA):
            state.data(at, data)
            if is_sent:
                self._changes.send(frames.Data(at, data))
            self._tally.tell(len(data))
        return state.finish()

    def _patch(self, step: Step, entry: Entry, before: Row, fd: int, mine: bytes) -> None:
        """Send the blocks that differ from those the other side has."""
        size = content.block_bytes(entry.size)
        blocks = bytearray()
        is_told = False
        for number, runs in enumerate(sparse.data_blocks(fd, entry.size, size)):
            digest = content.block_digest(runs)
            blocks += digest
            self._tally.tell()
            if digest != content.nth_block(before.blocks, number):
                if not is_told:
                    is_told = True
                    self._changes.renew(step, frames.Patch(step.name, entry))
                self._send_block(number * size, min(size, entry.size - number * size), runs)
        digest = content.of_blocks(entry.size, bytes(blocks))
        if is_told or entry.size != before.entry.size:
            if not is_told:
                self._changes.renew(step, frames.Patch(step.name, entry))
            self._changes.send(frames.Eof(digest))
        else:
            self._same(step, entry, before)
        self._keep(step, entry, digest, bytes(blocks), fd, mine)

    def _send_block(self, start: int, length: int, runs: list[tuple[int, bytes]]) -> None:
        """Say everything of one block, data and holes, in order."""
        at = 0
        for offset, data in runs:
            if offset > at:
                self._changes.send(frames.Hole(start + at, offset - at))
            for begin in range(0, len(data), frames.MAX_DATA):
                piece = data[begin : begin + frames.MAX_DATA]
                self._changes.send(frames.Data(start + offset + begin, piece))
            at = offset + len(data)
        if at < length:
            self._changes.send(frames.Hole(start + at, length - at))

    def _moved_unread(self, step: Step) -> tuple[bytes, Row] | None:
        """Where the other side has this very file, if its directory was renamed: proof holds."""
        mine = proof(step.stat)
        for path, row in self._ledger.by_inode(step.stat.st_ino):
            if row.entry.kind == Kind.FILE and row.proof == mine:
                return path, row
        return None

    def _moved_read(self, step: Step, fd: int) -> tuple[bytes, bytes, bytes] | None:
        """Digest, blocks and place of a large file's content the other side has elsewhere."""
        candidates = (row.entry.size for _, row in self._ledger.by_inode(step.stat.st_ino))
        if step.stat.st_size not in candidates:
            return None
        digest, blocks = self._read(fd, step.stat.st_size, is_sent=False)
        source = self._ledger.by_digest(digest)
        return None if source is None else (digest, blocks, source)

    def _copy(
        self, step: Step, entry: Entry, digest: bytes, blocks: bytes, source: bytes, mine: bytes
    ) -> None:
        self._changes.renew(step, frames.Copy(step.name, entry, digest, source))
        self._tally.bytes += entry.size
        self._ledger.put(
            step.path, Row(entry, digest, blocks, self._changes.lasting(step.stat, mine))
        )

    def _keep(
        self, step: Step, entry: Entry, digest: bytes, blocks: bytes, fd: int, mine: bytes
    ) -> None:
        """Remember what the other side has, with a proof only if nothing changed meanwhile."""
        self._tally.bytes += entry.size
        lasting = self._changes.lasting(step.stat, mine)
        if mine and proof(os.fstat(fd)) != mine:
            self._is_torn = True
            lasting = b""
            self._changes.is_proven = False
        if entry.size <= PATCHABLE_BYTES:
            blocks = b""
        self._ledger.put(step.path, Row(entry, digest, blocks, lasting))


def _is_patchable(old: Entry, new: Entry) -> bool:
    """Whether the two contents can be compared block by block."""
    block = content.block_bytes(new.size)
    is_large = min(old.size, new.size) > PATCHABLE_BYTES
    return is_large and block == content.block_bytes(old.size) and block <= _MAX_BLOCK_BYTES


def _fits_frame(fd: int, stat: os.stat_result) -> bool:
    """Whether the file fits into one frame and has no holes."""
    size = stat.st_size
    if not 0 < size <= frames.SMALL:
        return not size
    # The number of blocks does not tell: some may be reserved and hold nothing yet.
    return sparse.is_dense(fd, size)
