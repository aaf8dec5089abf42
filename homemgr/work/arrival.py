"""The receiver's side of a pass: each frame becomes a change of the tree, and a row of the ledger.

What the sender says is not believed: the ledger gets the digest of what came, and an entry
that the policy for arriving entries would change is refused, since a sender of ours has
applied it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.storage import reader
from homemgr.storage.ledger import Row
from homemgr.transfer import content, frames, policy
from homemgr.transfer.content import ContentDigest
from homemgr.transfer.entry import MAX_PATH, Entry, Kind, join
from homemgr.work.contents import PATCHABLE_BYTES, Shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.ledger import Ledger
    from homemgr.storage.writer import FileWriter, TreeWriter
    from homemgr.transfer.frames import Frame
    from homemgr.transfer.policy import Policy


class Arrival:
    """A tree that is being written, and the ledger of what is in it."""

    def __init__(
        self,
        writer: TreeWriter,
        ledger: Ledger,
        rules: Policy,
        receive: Callable[[], Frame | Shared],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write with ``writer``; ``receive`` gives the frames of a content that follows."""
        self._writer = writer
        self._ledger = ledger
        self._rules = rules
        self._receive = receive
        self._progress = progress
        self._paths: list[bytes] = []
        self._files = self._bytes = 0
        self._takers: dict[type, Callable[..., None]] = {
            frames.Enter: self._enter,
            frames.Leave: self._leave,
            frames.File: self._file,
            frames.Patch: self._patch,
            frames.Same: self._same,
            frames.Copy: self._copy,
            frames.Node: self._node,
            frames.Delete: self._delete,
        }

    def take(self, frame: Frame | Shared) -> None:
        """Make the change that ``frame`` tells. Raises StreamError if it makes no sense."""
        taker = self._takers.get(type(frame))
        if taker is None:
            raise StreamError(f"A {type(frame).__name__} came where a change was expected.")
        try:
            taker(*frame)
        except reader.NAMELESS as error:
            here, name = self._paths[-1] if self._paths else b"", getattr(frame, "name", b"")
            reader.note_path(error, join(here, name) if name else here)
            raise
        self._files += 1
        if not self._files & 0xFF:
            self._progress(self._files, self._bytes)

    def require_complete(self) -> None:
        """Raise StreamError within a directory."""
        if self._paths:
            raise StreamError("The pass ended within a directory.")

    # -- directories ---------------------------------------------------------------------

    def _enter(self, name: bytes, entry: Entry | None) -> None:
        if bool(self._paths) != bool(name):
            raise StreamError("Only the first directory of a walk is the top.")
        path = join(self._paths[-1], name) if self._paths else b""
        if len(path) > MAX_PATH:
            # Each directory would repeat it in the ledger.
            raise StreamError(f"A path is longer than {MAX_PATH} bytes.")
        if entry is not None:
            self._check(path, entry, Kind.DIRECTORY)
            self._ledger.put(path, Row(entry, b"", b"", b""))
        else:
            known = self._ledger.get(path)
            if known is None or known.entry.kind != Kind.DIRECTORY:
                raise StreamError("The sender goes into a directory that is not there.")
        self._writer.enter(name, entry)
        self._paths.append(path)

    def _leave(self) -> None:
        self._here()
        self._writer.leave()
        self._paths.pop()

    def _here(self) -> bytes:
        if not self._paths:
            raise StreamError("A change came outside of the top directory.")
        return self._paths[-1]

    def _delete(self, name: bytes) -> None:
        path = join(self._here(), name)
        self._writer.delete(name)
        self._ledger.drop(path)

    # -- entries ----------------------------------------------------------------------------

    def _check(self, path: bytes, entry: Entry, *kinds: Kind) -> None:
        if entry.kind not in kinds or policy.sanitise(path, entry, self._rules) != (entry, []):
            raise StreamError(f"The sender wants to store at {path!r} what is not allowed.")

    def _node(self, name: bytes, entry: Entry) -> None:
        path = join(self._here(), name)
        if entry.kind == Kind.LINK:
            self._require_file(entry.target)
        else:
            self._check(path, entry, Kind.SYMLINK, Kind.FIFO)
        proof = self._writer.node(name, entry)
        self._ledger.put(path, Row(entry, b"", b"", proof))

    def _same(self, name: bytes, entry: Entry) -> None:
        path = join(self._here(), name)
        self._check(path, entry, Kind.FILE)
        before = self._require_file(path)
        if before.entry.size != entry.size:
            raise StreamError(f"The size of {path!r} changed, its content did not.")
        proof = self._writer.same(name, entry)
        self._ledger.put(path, before._replace(entry=entry, proof=proof))

    def _require_file(self, path: bytes) -> Row:
        row = self._ledger.get(path)
        if row is None or row.entry.kind in (Kind.DIRECTORY, Kind.LINK):
            raise StreamError(f"The sender refers to {path!r}, which is not here.")
        return row

    def _file(self, name: bytes, entry: Entry, data: frames.Content | None) -> None:
        path = join(self._here(), name)
        self._check(path, entry, Kind.FILE)
        if data is None:
            with self._writer.begin(name, entry) as file:
                self._content(path, entry, file, ContentDigest(entry.size))
            return
        digest = content.digest_small(data)
        proof = self._writer.write_small(name, entry, data)
        self._bytes += len(data)
        self._ledger.put(path, Row(entry, digest, b"", proof))

    def _patch(self, name: bytes, entry: Entry) -> None:
        path = join(self._here(), name)
        self._check(path, entry, Kind.FILE)
        before = self._require_file(path)
        if not before.blocks:
            raise StreamError(f"The sender patches {path!r}, which is too small for it.")
        # Of the last block of a file that became shorter or longer everything is told.
        with self._writer.begin(name, entry, copy_of=path) as file:
            self._content(path, entry, file, ContentDigest(entry.size, before.blocks))

    def _copy(self, name: bytes, entry: Entry, digest: bytes, source: bytes) -> None:
        path = join(self._here(), name)
        self._check(path, entry, Kind.FILE)
        row = self._require_file(source)
        if row.digest != digest or row.entry.size != entry.size:
            raise StreamError(f"{source!r} is another file here than at the sender.")
        with self._writer.begin(name, entry, copy_of=source) as file:
            proof = file.finish()
        self._ledger.put(path, Row(entry, digest, row.blocks, proof))

    def _content(self, path: bytes, entry: Entry, file: FileWriter, state: ContentDigest) -> None:
        """Take the content that follows, to its end."""
        is_shared = False
        while True:
            frame = self._receive()
            if isinstance(frame, frames.Data):
                state.data(frame.offset, frame.data)
                file.data(frame.offset, frame.data)
                self._bytes += len(frame.data)
                self._progress(self._files, self._bytes)
            elif isinstance(frame, frames.Hole):
                state.hole(frame.offset, frame.length)
                file.hole(frame.offset, frame.length)
            elif isinstance(frame, Shared):
                # Read by who hands it over; what became of it is read again by who has it made.
                with frame.file as source:
                    file.copy(source.fileno())
                is_shared = True
            elif isinstance(frame, frames.Eof):
                break
            else:
                raise StreamError(f"The content of {path!r} is not complete.")
        digest, blocks = (frame.digest, b"") if is_shared else state.finish()
        if digest != frame.digest:
            raise _damaged(path)
        proof = file.finish()
        if entry.size <= PATCHABLE_BYTES:
            blocks = b""
        self._ledger.put(path, Row(entry, digest, blocks, proof))


def _damaged(path: bytes) -> StreamError:
    return StreamError(f"What arrived for {path!r} is damaged.")
