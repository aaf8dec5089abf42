"""Make a half-arrived tree and its ledger agree again after a kill or a power cut.

What the ledger has not is deleted. What is not as the ledger has it is read: if the content is
right the ledger takes the metadata that are there, otherwise it forgets the file. Either
way the sender then sends what is missing.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from homemgr.storage import reader
from homemgr.storage.ledger import Row, proof
from homemgr.storage.tree import delete_tree
from homemgr.storage.writer import open_directory
from homemgr.transfer.content import ContentDigest
from homemgr.transfer.entry import Kind, join, split

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.ledger import Known, Ledger
    from homemgr.storage.reader import Step

#: Read in pieces of this size.
_PIECE_BYTES = 256 << 10


def verify(top: Fd, ledger: Ledger, leave_out: frozenset[bytes]) -> int:
    """Walk the tree below ``top``; gives how many names the ledger had to forget."""
    return _Verification(top, ledger).run(leave_out)


class _Verification:
    """One walk."""

    def __init__(self, top: Fd, ledger: Ledger) -> None:
        self._top = top
        self._ledger = ledger
        #: For each directory on the way: what the ledger has in it and was not met yet.
        self._levels: list[dict[bytes, Known]] = []
        self._first: dict[tuple[int, int], bytes] = {}
        self._strange: list[bytes] = []
        #: Below a directory that will be deleted: its path.
        self._within: bytes | None = None
        self._dropped = 0

    def run(self, leave_out: frozenset[bytes]) -> int:
        for step in reader.walk(self._top, leave_out=leave_out):
            if self._within is not None:
                if step.what == reader.LEAVE and step.path == self._within:
                    self._within = None
            elif step.what == reader.LEAVE:
                self._leave(step)
            elif step.what == reader.ENTER:
                self._enter(step)
            else:
                self._entry(step)
        for path in self._strange:
            directory, name = split(path)
            with open_directory(self._top, directory) as parent:
                _delete(parent, name)
        return self._dropped

    def _enter(self, step: Step) -> None:
        known = self._known(step)
        if step.path and (known is None or known.kind != Kind.DIRECTORY):
            self._drop(step.path, known)
            self._strange.append(step.path)
            self._within = step.path
            return
        if known is not None:
            # What it looks like now is certain; if that is not what it should, it is told again.
            self._ledger.put(step.path, Row(reader.read_entry(step), b"", b"", b""))
        self._levels.append(self._ledger.children(step.path))

    def _known(self, step: Step) -> Known | None:
        return self._levels[-1].pop(step.name, None) if step.path else self._ledger.known(b"")

    def _leave(self, step: Step) -> None:
        for name in self._levels.pop():
            self._ledger.drop(join(step.path, name))
            self._dropped += 1

    def _entry(self, step: Step) -> None:
        known = self._known(step)
        first = self._first.setdefault((step.stat.st_dev, step.stat.st_ino), step.path)
        if known is None:
            self._strange.append(step.path)
        elif known.kind == Kind.LINK:
            row = self._ledger.get(step.path)
            if row is None or row.entry.target != first:
                self._drop(step.path, known)
        elif known.proof != proof(step.stat) and not self._is_repaired(step):
            self._drop(step.path, known)

    def _drop(self, path: bytes, known: Known | None) -> None:
        if known is not None:
            self._ledger.drop(path)
            self._dropped += 1

    def _is_repaired(self, step: Step) -> bool:
        """Whether the ledger could be made to say what is there."""
        row = self._ledger.get(step.path)
        entry = reader.read_entry(step)
        if row is None or row.entry.kind != entry.kind:
            return False
        if entry.kind == Kind.FILE and _digest(step) != row.digest:
            return False
        self._ledger.put(step.path, row._replace(entry=entry, proof=proof(step.stat)))
        return True


def _digest(step: Step) -> bytes:
    with reader.open_content(step) as file:
        return digest_of(file.fileno(), step.stat)


def digest_of(fd: int, found: os.stat_result) -> bytes:
    """The digest of an open file's content, see `ContentDigest`."""
    state = ContentDigest(found.st_size)
    for offset, length in reader.data_runs(fd, found.st_size):
        end = offset + length
        while offset < end and (data := os.pread(fd, min(_PIECE_BYTES, end - offset), offset)):
            state.data(offset, data)
            offset += len(data)
    return state.finish()[0]


def _delete(parent: Fd, name: bytes) -> None:
    found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        delete_tree(parent, os.fsdecode(name))
    else:
        os.unlink(name, dir_fd=parent.fileno())
