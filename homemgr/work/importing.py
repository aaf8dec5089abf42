"""Verb import: make a home area of an archive that `export` wrote, or nothing at all.

The archive is believed as little as a sender: its introduction must be signed by an origin that
is trusted here, what is in it must be allowed, and its manifest must be that of what came.
"""

from __future__ import annotations

import json
import os
import select
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeExists, StreamError, TransferBusy
from homemgr.record.storages import abilities_of
from homemgr.storage.abilities import probe, storable_flags
from homemgr.storage.ledger import Ledger
from homemgr.storage.writer import FileWriter, TreeWriter
from homemgr.transfer import policy, tar, untar
from homemgr.transfer.entry import Kind, split
from homemgr.transfer.frames import Data
from homemgr.transfer.report import Report
from homemgr.work.allowance import Size
from homemgr.work.export import FORMAT, Manifest
from homemgr.work.opening import Opening
from homemgr.work.staged import (
    Content,
    Place,
    become_home,
    prepare,
    record_in,
    require_able,
    require_room,
    rules_for,
    size_of,
)
from homemgr.work.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.files import Fd
    from homemgr.job import Channel
    from homemgr.transfer.untar import Event, Member
    from homemgr.work.task import Task

_READ_BYTES = 256 << 10

#: A record with its pictures' digests, and a manifest, are far below this.
_MOST_DOCUMENT = 4 << 20


class _Header(NamedTuple):
    """What the archive begins with."""

    nonce: object
    introduction: object
    size: object
    needs: object


def run(task: Task) -> dict[str, object]:
    """Read the archive from the one descriptor; gives the uid of the home, and the report."""
    telling = Telling(task.channel)
    events = _events(task, telling)
    header = _header(_document(events, tar.RECORD))
    size = size_of(header.size)
    telling.expect(size.files, size.bytes)
    about = {"nonce": header.nonce, "introduction": header.introduction, "storage": "directory"}
    place = Place.of(task.channel.ask("hello", about))
    if place.phase == "prepared":
        raise TransferBusy(
            "This home area is about to arrive from its machine; run the same `homemgr migrate`"
            " again there to its end, or `homemgr transfers forget --force` here."
        )
    if place.phase not in ("new", "receiving"):
        raise HomeExists("This home area has arrived here already.")
    rules = rules_for(task, header.introduction)
    opening = Opening(task, record_in(header.introduction))
    opening.expect(size.files)
    if abilities_of(place.storage).has_key:
        opening.take_words([*task.spellings()])
    with ExitStack() as closing:
        parent = closing.enter_context(place.open_parent())
        # What came earlier over a stream has a ledger, and this has none.
        place.abandon()
        with Ledger(place.ledger) as ledger:
            ledger.drop(b"")
            ledger.commit()
        undo = closing.enter_context(ExitStack())
        # Of no use to a later run: a file is read from its beginning, or not at all.
        undo.callback(place.abandon)
        area = closing.enter_context(opening.made(place, parent))
        stage = area.top.fd
        require_room(stage, Size(0, 0), size)
        require_able(probe(stage), header.needs)
        rules = rules._replace(flags=storable_flags(stage))
        telling.phase("importing")
        restoring = _Restoring(stage, rules, size)
        manifest = restoring.run(events)
        assert isinstance(header.introduction, dict)
        record, seal = header.introduction["record"], manifest.get("seal")
        place = prepare(task, area, place, Content(record, str(manifest["digest"]), seal))
        undo.pop_all()
    arrived = become_home(task, place, opening)
    report = restoring.report
    report.merge(Report.from_json(arrived["report"]))
    return {**arrived, "user": place.user, "report": report.to_json()}


def _events(task: Task, telling: Telling) -> Iterator[Event]:
    """All of the archive, to its end; raises Cancelled and EOFError if nobody wants it any more."""
    parser = untar.Reader()
    came = 0
    while data := _some(task.fds[0], task.channel):
        came += len(data)
        yield from parser.feed(data)
        telling.count(0, came)
    parser.finish()


def _some(source: Fd, channel: Channel) -> bytes:
    """What comes next of the archive, which may be a pipe out of which nothing comes."""
    readable, _, _ = select.select([source.fileno(), channel.fileno()], [], [])
    if channel.fileno() in readable:
        channel.require_wanted()
    return os.read(source.fileno(), _READ_BYTES)


def _document(events: Iterator[Event], expected: bytes) -> dict[str, object]:
    """The JSON object that is the next member."""
    member = next(events, None)
    if not isinstance(member, untar.Member) or member.document != expected:
        raise StreamError("This is not the export of a home area.")
    return _text(events)


def _text(events: Iterator[Event]) -> dict[str, object]:
    """The JSON object that is the content of the present member."""
    text = bytearray()
    for event in events:
        if not isinstance(event, Data):
            break
        text += event.data
        if len(text) > _MOST_DOCUMENT:
            raise StreamError("A document in the archive is too large.")
    try:
        value = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise StreamError("A document in the archive is no JSON.") from error
    if not isinstance(value, dict):
        raise StreamError("A document in the archive is no JSON object.")
    return value


def _header(about: dict[str, object]) -> _Header:
    if about.get("format") != FORMAT:
        raise StreamError(
            f"The archive is of format {str(about.get('format'))[:40]!r}, expected {FORMAT!r}."
        )
    return _Header(
        about.get("nonce"), about.get("introduction"), about.get("size"), about.get("needs")
    )


class _Restoring:
    """Writes members of the archive, which come directories first, into an empty tree."""

    def __init__(self, stage: Fd, rules: policy.Policy, size: Size) -> None:
        self._writer = TreeWriter(stage)
        self._rules = rules
        self._left = size
        self._manifest = Manifest()
        self.report = Report()
        #: Paths of the directories we are in.
        self._within: list[bytes] = []

    def run(self, events: Iterator[Event]) -> dict[str, object]:
        """Take everything up to the manifest, which must be that of what came; gives it."""
        with self._writer:
            for event in events:
                if not isinstance(event, untar.Member):
                    raise StreamError("The archive has content that belongs to nothing.")
                if event.document:
                    break
                self._take(event, events)
            while self._within:
                self._leave()
        told = _text(events)
        mine = self._manifest.to_json()
        if {name: told.get(name) for name in mine} != mine:
            raise StreamError("The archive is damaged: its manifest is not that of its content.")
        for _ in events:
            raise StreamError("The archive goes on after its manifest.")
        return told

    def _take(self, member: Member, events: Iterator[Event]) -> None:
        path = member.path
        self._count(member.entry.size)
        entry, notes = policy.sanitise(path, member.entry, self._rules)
        self._manifest.entry(path, member.entry)
        self.report.extend(notes)
        directory, name = split(path)
        if path:
            while self._within and self._within[-1] != directory:
                self._leave()
        if bool(self._within) != bool(path):
            raise StreamError(f"{path[:255]!r} comes before the directory that holds it.")
        if entry is None:
            return
        if entry.kind == Kind.DIRECTORY:
            self._writer.enter(name, entry)
            self._within.append(path)
        elif entry.kind == Kind.FILE:
            with self._writer.begin(name, entry) as file:
                self._content(events, file)
        else:
            self._writer.node(name, entry)

    def _count(self, size: int) -> None:
        """Raise StreamError if the archive holds more than it says at its beginning."""
        self._left = Size(self._left.files - 1, 0, self._left.content - size)
        if self._left.files < 0 or self._left.content < 0:
            raise StreamError("The archive holds more than it says at its beginning.")

    def _leave(self) -> None:
        self._writer.leave()
        self._within.pop()

    def _content(self, events: Iterator[Event], file: FileWriter) -> None:
        for event in events:
            if not isinstance(event, Data):
                break
            self._manifest.data(event.offset, event.data)
            file.data(event.offset, event.data)
        self._manifest.end_file()
        file.finish()
