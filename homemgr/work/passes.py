"""One pass of a home's tree over to the other machine: what changed, and nothing else.

The ledger tells what the other side has at each path, and how the file looked here when it
was read (its proof). A file whose proof still holds is not read again. What the other
side has under another name is copied there, not sent; of a large file that changed only the changed
blocks travel. Deletions come last, so that what moved can be copied from its old place.

May run while the home is in use: a file that changes while it is read has no proof, and
the next pass reads it again.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from homemgr.storage import reader
from homemgr.storage.ledger import Ledger, Row, proof
from homemgr.transfer import codec, content, frames, policy
from homemgr.transfer.entry import Entry, Kind, join
from homemgr.transfer.report import Note, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.storage.ledger import Known
    from homemgr.storage.reader import Step
    from homemgr.transfer.frames import Frame

#: Files above this size are compared block by block when they changed.
PATCHABLE_BYTES = 1 << 20
#: A block is held in memory while it is compared; files with larger blocks are sent whole.
_MAX_BLOCK_BYTES = 64 << 20
#: Deletions that are remembered for the end of a pass; further ones happen at once.
_MAX_DELETIONS = 100_000
#: A change may be this much older than the time stamp that it gets (timer ticks, kernel/time).
_TICK_NS = 20_000_000


class Totals(NamedTuple):
    """What a pass met: entries, bytes of files; and how many changes it told."""

    files: int
    size: int
    changes: int


class _Level:
    """A directory on the way down."""

    __slots__ = ("entry", "is_entered", "known", "name")

    def __init__(self, name: bytes, known: dict[bytes, Known], entry: Entry | None) -> None:
        self.name = name
        #: What the other side has in it; what was met is taken out, the rest is to be deleted.
        self.known = known
        #: What is to be told about the directory itself; None if the other side has it so.
        self.entry = entry
        self.is_entered = False


class Pass:
    """One walk. ``settled_ns`` is a time before all that is in memory only was written out."""

    def __init__(
        self,
        top: Fd,
        ledger: Ledger,
        rules: policy.Policy,
        send: Callable[[Frame], None],
        settled_ns: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Walk below ``top``; ``progress`` is told of entries and bytes that were dealt with."""
        self._top = top
        self._ledger = ledger
        self._rules = rules
        self._send = send
        self._settled_ns = settled_ns - _TICK_NS
        self._progress = progress
        self.report = Report()
        self._levels: list[_Level] = []
        #: First name of each file with several, by device and inode.
        self._first: dict[tuple[int, int], bytes] = {}
        #: First names whose file the other side made anew: its other names must follow.
        self._renewed: set[bytes] = set()
        self._deletions: list[tuple[bytes, list[bytes]]] = []
        self._pending = 0
        self._files = self._bytes = self._changes = 0

    def run(self, leave_out: frozenset[bytes]) -> Totals:
        """Walk the tree once; ``leave_out`` are paths that do not travel."""
        for step in reader.walk(self._top, leave_out=leave_out):
            if step.what == reader.ENTRY:
                self._entry(step)
            elif step.what == reader.ENTER:
                self._enter(step)
            else:
                self._leave(step)
        self._delete_rest()
        self._progress(self._files, self._bytes)
        return Totals(self._files, self._bytes, self._changes)

    # -- directories ------------------------------------------------------------------

    def _enter(self, step: Step) -> None:
        self._files += 1
        above = self._levels[-1].known if self._levels else {b"": self._ledger.known(b"")}
        known = above.pop(step.name, None)
        mine = proof(step.stat)
        entry = None
        if known is None or known.proof != mine:
            entry = self._directory(step, known, mine)
        children = self._ledger.children(step.path)
        self._levels.append(_Level(step.name, children, entry))

    def _directory(self, step: Step, known: Known | None, mine: bytes) -> Entry | None:
        """What to tell about a directory that may have changed; None if nothing."""
        entry = self._sanitised(step)
        assert entry is not None  # a directory always travels
        if known is not None and known.signature == codec.signature(entry, b""):
            self._ledger.touch(step.path, self._lasting(step.stat, mine))
            return None
        self._ledger.put(step.path, Row(entry, b"", b"", self._lasting(step.stat, mine)))
        return entry

    def _leave(self, step: Step) -> None:
        level = self._levels[-1]
        if level.known:
            self._delete_later(step.path, sorted(level.known))
        if level.entry is not None:
            self._open()
        self._levels.pop()
        if level.is_entered:
            self._send(frames.Leave())

    def _open(self) -> None:
        """Go into all directories down to the present one, as far as not yet done."""
        for level in self._levels:
            if not level.is_entered:
                level.is_entered = True
                self._send(frames.Enter(level.name, level.entry))
                self._changes += level.entry is not None

    def _tell(self, frame: Frame) -> None:
        self._open()
        self._changes += 1
        self._send(frame)

    def _delete_later(self, directory: bytes, names: list[bytes]) -> None:
        """Have ``names`` deleted at the end of the pass, or at once if there are too many."""
        if self._pending + len(names) <= _MAX_DELETIONS:
            self._deletions.append((directory, names))
            self._pending += len(names)
            return
        for name in names:
            self._tell(frames.Delete(name))
            self._ledger.drop(join(directory, name))

    def _delete_rest(self) -> None:
        """Delete what is not here any more."""
        for directory, names in self._deletions:
            above = [b"", *directory.split(b"/")] if directory else [b""]
            for name in above:
                self._send(frames.Enter(name, None))
            for name in names:
                self._send(frames.Delete(name))
                self._ledger.drop(join(directory, name))
            for _ in above:
                self._send(frames.Leave())
            self._changes += len(names)

    # -- all else -----------------------------------------------------------------------

    def _entry(self, step: Step) -> None:
        here = self._levels[-1].known
        known = here.pop(step.name, None)
        stat = step.stat
        self._files += 1
        if not self._files & 0xFF:
            self._progress(self._files, self._bytes)
        mine = proof(stat)
        if stat.st_nlink > 1 and self._is_further_name(step, known, mine):
            return
        if known is not None and known.proof == mine and known.kind != Kind.LINK:
            self._bytes += stat.st_size
            return
        if not self._is_told(step, known, mine) and known is not None:
            # Not here any more, or nothing that travels.
            here[step.name] = known

    def _is_told(self, step: Step, known: Known | None, mine: bytes) -> bool:
        """Tell of what is new or changed; False if there is nothing that could travel."""
        try:
            entry = self._sanitised(step)
            if entry is None:
                return False
            if entry.kind == Kind.FILE:
                self._file(step, entry, known, mine)
            else:
                self._node(step, entry, known, mine)
        except reader.FileVanished:
            return False
        return True

    def _is_further_name(self, step: Step, known: Known | None, mine: bytes) -> bool:
        """Tell that this is another name of a file that was there already."""
        inode = (step.stat.st_dev, step.stat.st_ino)
        first = self._first.setdefault(inode, step.path)
        if first == step.path:
            return False
        if self._ledger.known(first) is None:
            # The first name vanished, or did not travel: neither can this one be linked.
            self._first[inode] = step.path
            return False
        entry = Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, first, ())
        signature = codec.signature(entry, b"")
        if known is None or known.signature != signature or first in self._renewed:
            self._clear(step, known)
            self._tell(frames.Node(step.name, entry))
            self._ledger.put(step.path, Row(entry, b"", b"", mine))
        elif known.proof != mine:
            self._ledger.touch(step.path, mine)
        return True

    def _node(self, step: Step, entry: Entry, known: Known | None, mine: bytes) -> None:
        row = Row(entry, b"", b"", self._lasting(step.stat, mine))
        if known is None or known.signature != codec.signature(entry, b""):
            self._clear(step, known)
            self._renew(step)
            self._tell(frames.Node(step.name, entry))
        self._ledger.put(step.path, row)

    def _clear(self, step: Step, known: Known | None) -> None:
        """Have a directory deleted there that is none here; all else is replaced as it is."""
        if known is not None and known.kind == Kind.DIRECTORY:
            self._tell(frames.Delete(step.name))
            self._ledger.drop(step.path)

    def _renew(self, step: Step) -> None:
        if step.stat.st_nlink > 1:
            self._renewed.add(step.path)

    # -- files ----------------------------------------------------------------------------

    def _file(self, step: Step, entry: Entry, known: Known | None, mine: bytes) -> None:
        before = None
        if known is not None and known.kind == Kind.FILE:
            before = self._ledger.get(step.path)
        else:
            self._clear(step, known)
        if before is None and (proven := self._moved_unread(step)):
            self._copy(step, entry, proven[1].digest, proven[1].blocks, proven[0], mine)
            return
        with reader.open_content(step) as file:
            runs = _runs(file.fileno(), step.stat)
            if runs is None:
                self._small(step, entry, before, file.fileno(), mine)
            elif before is not None and _is_patchable(before.entry, entry):
                self._patch(step, entry, before, file.fileno(), mine)
            elif before is not None and self._is_as_before(entry, before, file.fileno()):
                self._same(step, entry, before)
                self._keep(step, entry, before.digest, before.blocks, file.fileno(), mine)
            elif before is None and (moved := self._moved_read(step, file.fileno())):
                digest, blocks, source = moved
                self._copy(step, entry, digest, blocks, source, mine)
            else:
                self._whole(step, entry, before, file.fileno(), mine)

    def _small(self, step: Step, entry: Entry, before: Row | None, fd: int, mine: bytes) -> None:
        """A file that fits into one frame and has no holes."""
        data = _read_up_to(fd, frames.SMALL + 1)
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
            self._renew(step)
            self._tell(frames.File(step.name, entry, digest, data))
        self._keep(step, entry, digest, b"", fd, mine)

    def _is_as_before(self, entry: Entry, before: Row, fd: int) -> bool:
        """Whether the content is the one the other side has, to be found by reading it."""
        if entry.size != before.entry.size:
            return False
        return self._read(fd, entry.size, is_sent=False)[0] == before.digest

    def _same(self, step: Step, entry: Entry, before: Row) -> None:
        """The content is there; tell what else changed, if anything."""
        if codec.signature(before.entry, before.digest) != codec.signature(entry, before.digest):
            self._tell(frames.Same(step.name, entry))

    def _whole(self, step: Step, entry: Entry, before: Row | None, fd: int, mine: bytes) -> None:
        """Send all of a file; its digest is known only after it was read."""
        self._renew(step)
        self._tell(frames.File(step.name, entry, frames.UNKNOWN, None))
        digest, blocks = self._read(fd, entry.size, is_sent=True)
        self._send(frames.Eof(digest))
        self._keep(step, entry, digest, blocks, fd, mine)

    def _read(self, fd: int, size: int, *, is_sent: bool) -> tuple[bytes, bytes]:
        """Digest of a file's content, and of its blocks; sends it on the way if asked."""
        state = content.ContentDigest(size)
        for offset, length in reader.data_runs(fd, size):
            at, end = offset, offset + length
            while at < end:
                data = os.pread(fd, min(frames.MAX_DATA, end - at), at)
                if not data:
                    break
                state.data(at, data)
                if is_sent:
                    self._send(frames.Data(at, data))
                    self._count(len(data))
                at += len(data)
        return state.finish()

    def _count(self, size: int) -> None:
        """Tell how far it is within a large file."""
        self._progress(self._files, self._bytes + size)

    def _patch(self, step: Step, entry: Entry, before: Row, fd: int, mine: bytes) -> None:
        """Send the blocks that differ from those the other side has."""
        size = content.block_bytes(entry.size)
        blocks = bytearray()
        is_told = False
        for number, runs in enumerate(_blocks(fd, entry.size, size)):
            digest = content.block_digest(runs)
            blocks += digest
            if digest != content.nth_block(before.blocks, number):
                if not is_told:
                    is_told = True
                    self._renew(step)
                    self._tell(frames.Patch(step.name, entry))
                self._send_block(number * size, min(size, entry.size - number * size), runs)
        digest = content.of_blocks(entry.size, bytes(blocks))
        if is_told or entry.size != before.entry.size:
            if not is_told:
                self._renew(step)
                self._tell(frames.Patch(step.name, entry))
            self._send(frames.Eof(digest))
        else:
            self._same(step, entry, before)
        self._keep(step, entry, digest, bytes(blocks), fd, mine)

    def _send_block(self, start: int, length: int, runs: list[tuple[int, bytes]]) -> None:
        """Say everything of one block, data and holes, in order."""
        at = 0
        for offset, data in runs:
            if offset > at:
                self._send(frames.Hole(start + at, offset - at))
            for begin in range(0, len(data), frames.MAX_DATA):
                piece = data[begin : begin + frames.MAX_DATA]
                self._send(frames.Data(start + offset + begin, piece))
            at = offset + len(data)
        if at < length:
            self._send(frames.Hole(start + at, length - at))

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
        self._renew(step)
        self._tell(frames.Copy(step.name, entry, digest, source))
        self._bytes += entry.size
        self._ledger.put(step.path, Row(entry, digest, blocks, self._lasting(step.stat, mine)))

    def _keep(
        self, step: Step, entry: Entry, digest: bytes, blocks: bytes, fd: int, mine: bytes
    ) -> None:
        """Remember what the other side has, with a proof only if nothing changed meanwhile."""
        self._bytes += entry.size
        lasting = self._lasting(step.stat, mine)
        if lasting and proof(os.fstat(fd)) != mine:
            self.report.add(Note("changed-while-read", step.path, ""))
            lasting = b""
        if entry.size <= PATCHABLE_BYTES:
            blocks = b""
        self._ledger.put(step.path, Row(entry, digest, blocks, lasting))

    def _lasting(self, stat: os.stat_result, mine: bytes) -> bytes:
        """The proof, unless a later change could bear the same time stamp."""
        return mine if stat.st_ctime_ns < self._settled_ns else b""

    def _sanitised(self, step: Step) -> Entry | None:
        entry, notes = policy.sanitise(step.path, reader.read_entry(step), self._rules)
        for note in notes:
            self.report.add(note)
        return entry


def _is_patchable(old: Entry, new: Entry) -> bool:
    """Whether the two contents can be compared block by block."""
    block = content.block_bytes(new.size)
    is_large = min(old.size, new.size) > PATCHABLE_BYTES
    return is_large and block == content.block_bytes(old.size) and block <= _MAX_BLOCK_BYTES


def now_ns() -> int:
    """The clock that files get their times from."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def _runs(fd: int, stat: os.stat_result) -> bool | None:
    """None if the file fits into a frame and has no holes; True otherwise."""
    if stat.st_size > frames.SMALL:
        return True
    if stat.st_blocks * 512 >= stat.st_size:
        return None
    # Few blocks may be compression or data kept in the inode; holes show when asked for.
    is_whole = list(reader.data_runs(fd, stat.st_size)) == [(0, stat.st_size)]
    return None if is_whole else True


def _read_up_to(fd: int, limit: int) -> bytes:
    data = os.read(fd, limit)
    if not data:
        return data
    pieces = [data]
    left = limit - len(data)
    while left and (data := os.read(fd, left)):
        pieces.append(data)
        left -= len(data)
    return b"".join(pieces) if len(pieces) > 1 else pieces[0]


def _blocks(fd: int, size: int, block: int) -> Iterator[list[tuple[int, bytes]]]:
    """The data of each block: offset in the block and bytes, holes left out."""
    number = 0
    runs: list[tuple[int, bytes]] = []
    for offset, length in reader.data_runs(fd, size):
        at, end = offset, offset + length
        while at < end:
            while at >= (number + 1) * block:
                yield runs
                number, runs = number + 1, []
            start = number * block
            data = _pread_all(fd, min(end, start + block) - at, at)
            if not data:
                break
            runs.append((at - start, data))
            at += len(data)
    for _ in range(number, -(-size // block)):
        yield runs
        runs = []


def _pread_all(fd: int, count: int, offset: int) -> bytes:
    """``count`` bytes, fewer only at the end of the file."""
    data = os.pread(fd, count, offset)
    while 0 < len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
