"""Verb export: write a home area into one file, an archive that tar can restore without us.

The home must not be in use, and stays one of this machine. See `transfer.tar` for the layout.
"""

from __future__ import annotations

import json
import secrets
import struct
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import write_all
from homemgr.storage import reader
from homemgr.storage.first_names import FirstNames
from homemgr.storage.sparse import pieces
from homemgr.transfer import codec, policy, tar
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.needs import Ability, needs_to_json
from homemgr.transfer.report import Report
from homemgr.work.cleaning import clean_home
from homemgr.work.exclusion import alone_with_home
from homemgr.work.found import tell_record
from homemgr.work.send import LEFT_OUT
from homemgr.work.survey import survey
from homemgr.work.telling import Telling
from homemgr.work.wanted import Options

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.reader import Step
    from homemgr.transfer.needs import Needs
    from homemgr.work.allowance import Size
    from homemgr.work.task import Task

#: What the archive says it is; another version may mean something else by its members.
FORMAT = "homemgr export 4"

#: Written at once.
_BATCH_BYTES = 1 << 20
_PIECE_BYTES = 256 << 10

_U32 = struct.Struct(">I")
_RUN = struct.Struct(">QQ")


class Manifest:
    """What must have arrived: count, bytes and one digest of all entries in their order.

    The digest is SHA-256 over, for each entry: length u32 and path, then the signature that
    `codec.signature` gives it with an empty digest; and of a file the SHA-256 over its data,
    and the SHA-256 over its runs of data: offset and end of each, u64, big endian.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.entries = self.bytes = 0
        self._state = sha256()
        self._data, self._runs = sha256(), sha256()
        #: The last run so far; without one both are 0.
        self._begin = self._end = 0

    def entry(self, path: bytes, entry: Entry) -> None:
        """One more name."""
        self.entries += 1
        mark = codec.signature(entry, b"")
        self._state.update(_U32.pack(len(path)) + path + mark)

    def data(self, offset: int, data: bytes | memoryview) -> None:
        """Content of the last name, in order."""
        if offset != self._end:
            self._end_run()
            self._begin = offset
        self._end = offset + len(data)
        self.bytes += len(data)
        self._data.update(data)

    def end_file(self) -> None:
        """The last name was a file, and has no more content."""
        self._end_run()
        self._state.update(self._data.digest() + self._runs.digest())
        self._data, self._runs = sha256(), sha256()
        self._begin = self._end = 0

    def _end_run(self) -> None:
        if self._end > self._begin:
            self._runs.update(_RUN.pack(self._begin, self._end))

    def to_json(self) -> dict[str, object]:
        """As the archive has it."""
        return {"entries": self.entries, "bytes": self.bytes, "digest": self._state.hexdigest()}


def run(task: Task) -> dict[str, object]:
    """Write the archive to the one descriptor; gives what was written and the report."""
    wait_s = Options.of(task).wait_s
    try:
        task.channel.ask("freeze", {"wait_s": wait_s if wait_s < _FOR_EVER_S else None})
    except errors.HomeBusy as error:
        raise errors.HomeBusy(
            f"{task.record.name} is logged in; export after the logout, or with --wait=SECONDS."
        ) from error
    with ExitStack() as closing:
        closing.enter_context(alone_with_home(task))
        top = closing.enter_context(task.open_checked()).top
        clean_home(task, top.fd)
        tell_record(task, top)
        size, needs = survey(top.fd, LEFT_OUT, list(Ability))
        is_wide = task.effective.idmap_policy != "strict"
        rules = policy.Policy(top.disk_uid, top.disk_gid, is_wide=is_wide)
        return _Export(task, task.fds[0], rules).run(top.fd, size, needs)


#: Longer than anybody waits (s).
_FOR_EVER_S = 1e9


class _Export:
    """One archive."""

    def __init__(self, task: Task, out: Fd, rules: policy.Policy) -> None:
        self._task = task
        self._out = out.fileno()
        self._rules = rules
        self._telling = Telling(task.channel)
        self._manifest = Manifest()
        self._report = Report()
        self._first = FirstNames()
        self._batch = bytearray()
        self._written = 0

    def run(self, top: Fd, size: Size, needs: Needs) -> dict[str, object]:
        self._telling.expect(size.files, size.bytes)
        self._telling.phase("exporting")
        nonce = secrets.token_hex(32)
        introduction = self._task.channel.ask("introduce", {"nonce": nonce})
        about: dict[str, object] = {
            "format": FORMAT,
            "nonce": nonce,
            "introduction": introduction,
            "size": size._asdict(),
            "needs": needs_to_json(needs),
        }
        self._document(tar.RECORD, about)
        for step in reader.walk(top, leave_out=LEFT_OUT):
            if step.what != reader.LEAVE:
                self._entry(step)
                self._telling.count(self._manifest.entries, self._manifest.bytes)
        manifest = self._manifest.to_json()
        sealed = self._task.channel.ask("seal", {"digest": manifest["digest"]})
        self._document(tar.MANIFEST, {**manifest, "seal": sealed["seal"]})
        self._write(tar.END)
        self._flush()
        return {**self._manifest.to_json(), "sent_bytes": self._written, **self._told()}

    def _told(self) -> dict[str, object]:
        return {"files": self._manifest.entries, "report": self._report.to_json()}

    def _document(self, name: bytes, content: dict[str, object]) -> None:
        text = json.dumps(content, indent=1).encode("ascii")
        self._write(tar.document(name, len(text)) + text + tar.padding(len(text)))

    def _entry(self, step: Step) -> None:
        entry, notes = policy.sanitise(step.path, reader.read_entry(step), self._rules)
        self._report.extend(notes)
        if entry is None:
            return
        if entry.kind != Kind.DIRECTORY and step.stat.st_nlink > 1:
            first = self._first.meet(step.stat, step.path)
            if first != step.path:
                entry = Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, first, ())
        self._manifest.entry(step.path, entry)
        if entry.kind == Kind.FILE:
            self._file(step, entry)
        else:
            self._write(tar.member(step.path, entry))

    def _file(self, step: Step, entry: Entry) -> None:
        with reader.open_content(step) as file:
            runs = list(reader.data_runs(file.fileno(), entry.size))
            self._write(tar.member(step.path, entry, runs))
            length = 0
            for offset, size in tar.stored(entry, runs):
                self._content(file.fileno(), offset, offset + size)
                length += size
            self._write(tar.padding(length))
        self._manifest.end_file()

    def _content(self, fd: int, at: int, end: int) -> None:
        for offset, data in pieces(fd, at, end, _PIECE_BYTES):
            self._manifest.data(offset, data)
            self._write(data)
            at = offset + len(data)
        if at < end:
            raise StreamError("A file became shorter while it was exported; export again.")

    def _write(self, data: bytes) -> None:
        self._batch += data
        if len(self._batch) >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Let it leave; raises Cancelled and EOFError if nobody wants it any more."""
        self._task.channel.require_wanted()
        write_all(self._out, bytes(self._batch))
        self._written += len(self._batch)
        self._batch.clear()
