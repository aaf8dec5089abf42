"""Make a half-arrived tree and its ledger agree again after a kill or a power cut.

What the ledger has not is deleted. What is not as the ledger has it is read: if the content
is right the ledger takes the metadata that are there, otherwise file and row both go.
Either way the sender then sends what is missing, and nothing stays that it does not know of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.files import Fd
from homemgr.storage import reader
from homemgr.storage.first_names import FirstNames
from homemgr.storage.ledger import INODE_BYTES, Row, proof
from homemgr.storage.sparse import data_pieces
from homemgr.storage.tree import delete_tree
from homemgr.storage.writer import open_directory
from homemgr.transfer.content import ContentDigest
from homemgr.transfer.entry import Kind, join, split

if TYPE_CHECKING:
    from homemgr.storage.ledger import Known, Ledger
    from homemgr.storage.reader import Step

#: Read in pieces of this size.
_PIECE_BYTES = 256 << 10


def verify(top: Fd, ledger: Ledger, leave_out: frozenset[bytes] = frozenset()) -> int:
    """Walk the tree below ``top``; gives how many names the ledger had to forget.

    Afterwards the ledger has exactly what is there, but for ``leave_out``, paths that are
    not its business.
    """
    return _Verification(top, ledger).run(leave_out)


def require_joined(top: Fd, ledger: Ledger) -> None:
    """StreamError if a further name of a file, as the ledger says, is that of another file.

    A name tells of its file only which first name that has: who sends one file under the first
    name, then a link, and then another file under the first name, has told no wrong word.
    """
    for path, link in ledger.links():
        first = ledger.get(link.entry.target)
        # Proofs begin with the inode; only where it may change is the tree to be asked.
        if first is not None and first.proof[:INODE_BYTES] == link.proof[:INODE_BYTES]:
            continue
        if first is None or _identity(top, path) != _identity(top, link.entry.target):
            raise StreamError(f"{path!r} is no longer a name of the file {link.entry.target!r}.")


def _identity(top: Fd, path: bytes) -> tuple[int, int]:
    directory, name = split(path)
    with open_directory(top, directory) as parent:
        found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    return found.st_dev, found.st_ino


class _Level:
    """A directory on the way down."""

    __slots__ = ("known", "strange")

    def __init__(self, known: dict[bytes, Known]) -> None:
        #: What the ledger has in it and was not met yet.
        self.known = known
        #: What is to be deleted when all of it was met.
        self.strange: list[bytes] = []


class _Verification:
    """One walk."""

    def __init__(self, top: Fd, ledger: Ledger) -> None:
        self._top = top
        self._ledger = ledger
        self._levels: list[_Level] = []
        self._first = FirstNames()
        #: How deep the walk is in a directory that will be deleted.
        self._depth = 0
        self._dropped = 0

    def run(self, leave_out: frozenset[bytes]) -> int:
        for step in reader.walk(self._top, leave_out=leave_out):
            if step.what == reader.ENTER:
                self._enter(step)
            elif step.what == reader.LEAVE:
                self._leave(step)
            elif not self._depth:
                self._entry(step)
        return self._dropped

    def _enter(self, step: Step) -> None:
        known = self._known(step) if not self._depth else None
        if self._depth or (step.path and (known is None or known.kind != Kind.DIRECTORY)):
            if not self._depth:
                self._discard(step, known)
            self._depth += 1
            return
        if known is not None:
            # What it looks like is certain; if that is not what it should, it is told again.
            self._ledger.put(step.path, Row(reader.read_entry(step), b"", b"", b""))
        self._levels.append(_Level(self._ledger.children(step.path)))

    def _known(self, step: Step) -> Known | None:
        if not step.path:
            return self._ledger.known(b"")
        return self._levels[-1].known.pop(step.name, None)

    def _leave(self, step: Step) -> None:
        if self._depth:
            self._depth -= 1
            return
        level = self._levels.pop()
        for name in level.known:
            self._ledger.drop(join(step.path, name))
            self._dropped += 1
        if level.strange:
            for name in level.strange:
                _delete(step.fd, name)
            # The ledger has the directory as it was met.
            os.utime(step.fd, ns=(step.stat.st_atime_ns, step.stat.st_mtime_ns))

    def _entry(self, step: Step) -> None:
        known = self._known(step)
        # Of a file that goes no other name is the first: they go too, or are the first.
        first = self._first.get(step.stat) or step.path
        if known is None or not self._is_kept(step, known, first):
            self._discard(step, known)
        elif step.stat.st_nlink > 1:
            self._first.meet(step.stat, step.path)

    def _is_kept(self, step: Step, known: Known, first: bytes) -> bool:
        """Whether the ledger says what is there, or could be made to."""
        if known.kind == Kind.LINK:
            row = self._ledger.get(step.path)
            return row is not None and row.entry.target == first
        if first != step.path:
            return False
        return known.proof == proof(step.stat) or self._is_repaired(step)

    def _is_repaired(self, step: Step) -> bool:
        """Have the ledger take the metadata; False if the content is another one."""
        row = self._ledger.get(step.path)
        entry = reader.read_entry(step)
        if row is None or row.entry.kind != entry.kind:
            return False
        if entry.kind == Kind.FILE and _digest(step) != row.digest:
            return False
        self._ledger.put(step.path, row._replace(entry=entry, proof=proof(step.stat)))
        return True

    def _discard(self, step: Step, known: Known | None) -> None:
        self._levels[-1].strange.append(step.name)
        if known is not None:
            self._ledger.drop(step.path)
            self._dropped += 1


def _digest(step: Step) -> bytes:
    with reader.open_content(step) as file:
        state = ContentDigest(step.stat.st_size)
        for offset, data in data_pieces(file.fileno(), step.stat.st_size, _PIECE_BYTES):
            state.data(offset, data)
        return state.finish()[0]


def _delete(parent: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        with Fd(os.dup(parent)) as directory:
            delete_tree(directory, os.fsdecode(name))
