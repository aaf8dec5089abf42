"""Verb receive: take a home area in that another machine sends over a stream.

What arrives is kept under a name that is no home's. It becomes one in a single step at the
end, when all of it is on disk and the other side has given it up; see `send` for the phases
of both sides. A stream that breaks leaves what came so far for the next run, a stream that
makes no sense changes nothing else.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.synchronization import syncfs
from homemgr.record.model import UserRecord
from homemgr.storage import directory, paths, public_blobs, staging
from homemgr.storage.embedded import read_blobs, read_identity, write_identity
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.ledger import Ledger
from homemgr.storage.top import Top
from homemgr.storage.verify import verify
from homemgr.storage.writer import TreeWriter
from homemgr.transfer import frames
from homemgr.transfer.frames import Control
from homemgr.transfer.policy import Policy
from homemgr.work.arrival import Arrival
from homemgr.work.conversation import Conversation
from homemgr.work.send import LEFT_OUT
from homemgr.work.telling import Telling

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject
    from homemgr.work.task import Task

#: Room that must stay free on the file system (bytes), and what each entry takes besides its data.
_SPARE_BYTES = 8 << 20
_ENTRY_BYTES = 512

#: Says in the ledger whether nothing was changed since files and ledger were made to agree.
_CLEAN = "clean"


def run(task: Task) -> dict[str, object]:
    """Carry out the receiver's side; gives the name and uid of the home, and the report."""
    incoming, outgoing = task.fds
    with Conversation(incoming, outgoing, task.channel.require_wanted) as talk:
        return _Receiver(task, talk).run()


class _Receiver:
    """One run, from the first word to the last."""

    def __init__(self, task: Task, talk: Conversation) -> None:
        self._task = task
        self._talk = talk
        self._telling = Telling(task.channel)

    def run(self) -> dict[str, object]:
        """Hear who sends what, say what we have of it, and do what the sender then says."""
        nonce = secrets.token_hex(32)
        self._talk.tell(challenge=nonce)
        said = self._talk.hear_message("introduction")
        size = _size(said.get("size"))
        place = _Place.of(
            self._ask("hello", nonce=nonce, introduction=said["introduction"], size=size._asdict())
        )
        self._telling.expect(size.files, size.bytes)
        is_wide = _is_wide(self._task, said["introduction"])
        with ExitStack() as closing:
            parent = closing.enter_context(_parent(place.image_path))
            stage = self._stage(closing, parent, place, size)
            self._talk.tell(
                hello={
                    "phase": place.phase,
                    "digest": stage.digest() if stage else "",
                    "machine_id": self._task.machine.id,
                    "hostname": self._task.machine.hostname or "",
                }
            )
            step = self._talk.hear("go")
            if step == "undo":
                return self._undo(parent, place)
            if step == "passes":
                if stage is None:
                    raise StreamError("The sender sends a home area that has arrived already.")
                if not self._take_in(stage, Policy(NOBODY, NOBODY, is_wide=is_wide)):
                    return {"files": stage.ledger.totals()[0]}
            self._talk.hear("commit")
            closing.pop_all().close()
        return self._commit(place)

    def _ask(self, question: str, **about: object) -> dict[str, object]:
        return self._task.channel.ask(question, about)

    def _stage(self, closing: ExitStack, parent: Fd, place: _Place, size: _Size) -> _Stage | None:
        """The tree as far as it came, made sure of; None once it has become a home."""
        if place.phase not in ("new", "receiving", "prepared"):
            return None
        if place.phase == "prepared" and not staging.is_there(parent, place.stage_name):
            # It was given its name, and then we were killed.
            return None
        is_new = not staging.is_there(parent, place.stage_name)
        top = closing.enter_context(staging.open_stage(parent, place.stage_name))
        ledger = closing.enter_context(Ledger(place.ledger))
        if is_new:
            # The ledger of a tree that is gone says nothing of this one.
            ledger.drop(b"")
            ledger.commit()
        elif ledger.meta(_CLEAN) != "yes":
            verify(top, ledger, LEFT_OUT)
            ledger.commit()
        _require_room(top, ledger, size)
        return _Stage(top, ledger, place)

    # -- the tree ---------------------------------------------------------------------------

    def _take_in(self, stage: _Stage, rules: Policy) -> bool:
        """Take passes until the sender says it was the last; True if all is ready to commit."""
        _mark(stage.ledger, "no")
        with TreeWriter(stage.top) as writer:
            while True:
                arrival = Arrival(
                    writer, stage.ledger, rules, self._talk.receive, self._telling.count
                )
                message = self._one_pass(arrival)
                if "compare" in message:
                    arrival.require_complete()
                    stage.settle()
                    self._talk.tell(has=stage.digest())
                elif "pairs" in message:
                    for frame in frames.in_frames(stage.ledger.pairs()):
                        self._talk.send(frame)
                    self._talk.flush()
                else:
                    break
        stage.settle()
        if "keep" in message:
            _mark(stage.ledger, "yes")
            self._talk.tell(kept=True)
            return False
        self._prepare(stage, message)
        return True

    def _one_pass(self, arrival: Arrival) -> dict[str, object]:
        """Take changes up to the next message."""
        while True:
            frame = self._talk.receive()
            if isinstance(frame, Control):
                return frame.message
            arrival.take(frame)

    # -- becoming a home ----------------------------------------------------------------------

    def _prepare(self, stage: _Stage, message: dict[str, object]) -> None:
        """Complete the tree with the record, signed here, and have all of it on disk for good."""
        if "prepare" not in message:
            raise StreamError("The sender said neither that there is more nor that this is all.")
        answer = self._ask("prepare", identity=message["prepare"])
        with Top(stage.top.duplicate(), stage.place.stage_name) as top:
            before = os.fstat(stage.top.fileno())
            write_identity(top, str(answer["identity"]).encode())
            os.utime(stage.top.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
        syncfs(stage.top.fileno())
        _mark(stage.ledger, "yes")
        self._talk.tell(prepared=True)

    def _commit(self, place: _Place) -> dict[str, object]:
        """Make it a home: the step after which it can be used here."""
        with _parent(place.image_path) as parent:
            if place.phase != "committed":
                staging.commit(parent, place.stage_name, os.path.basename(place.image_path))
        answer = self._ask("commit")
        publish_blobs(place.image_path, str(answer["blob_directory"]))
        arrived = {"uid": answer["uid"], "report": answer["report"]}
        self._talk.tell(committed=arrived)
        return arrived

    def _undo(self, parent: Fd, place: _Place) -> dict[str, object]:
        """Give the home back: nobody has used it here."""
        self._ask("undo")
        file_name = os.path.basename(place.image_path)
        if staging.is_there(parent, file_name):
            staging.withdraw(parent, file_name, place.stage_name)
        self._talk.tell(undone=True)
        self._talk.hear("back")
        staging.abandon(parent, place.stage_name)
        self._talk.tell(forgotten=True)
        return {}


class _Size(NamedTuple):
    """What the sender says the home takes."""

    files: int
    bytes: int


class _Place(NamedTuple):
    """Where the home arrives, as the daemon decided."""

    phase: str
    image_path: str
    stage_name: str
    ledger: str

    @classmethod
    def of(cls, answer: dict[str, object]) -> _Place:
        """From the daemon's answer; what the sender may know of it is kept apart."""
        return cls(
            str(answer["phase"]),
            os.path.join(str(answer["base_directory"]), str(answer["file_name"])),
            str(answer["stage_name"]),
            str(answer["ledger"]),
        )


class _Stage(NamedTuple):
    """The tree that is arriving."""

    top: Fd
    ledger: Ledger
    place: _Place

    def digest(self) -> str:
        """What the sender compares with its own."""
        return self.ledger.digest().hex()

    def settle(self) -> None:
        """Have on disk what the ledger says: files first."""
        syncfs(self.top.fileno())
        self.ledger.commit()


def _is_wide(task: Task, introduction: object) -> bool:
    """Whether the home needs more ids than its owner's, as its record says."""
    data = introduction.get("record") if isinstance(introduction, dict) else None
    if not isinstance(data, dict):
        raise StreamError("The sender introduced no user record.")
    return UserRecord(cast("JsonObject", data)).on(task.machine).idmap_policy != "strict"


def publish_blobs(image_path: str, blob_directory: str) -> None:
    """Show the public files that arrived inside the home, if they are those of its record."""
    root, user = os.path.split(blob_directory)
    with ExitStack() as closing:
        top = closing.enter_context(directory.open_home(image_path))
        embedded = UserRecord.parse(read_identity(top) or b"{}")
        manifest = embedded.data.get("blobManifest")
        if not isinstance(manifest, dict) or not manifest:
            return
        blobs = read_blobs(top, {name: str(digest) for name, digest in manifest.items()})
        for fd in blobs.values():
            closing.enter_context(fd)
        parent = closing.enter_context(Fd.open(root, DIRECTORY_FLAGS))
        public_blobs.publish(parent, user, {name: fd.fileno() for name, fd in blobs.items()})


def _parent(image_path: str) -> Fd:
    return paths.open_safe_parent(image_path, for_new=True)


def _mark(ledger: Ledger, value: str) -> None:
    """Note whether the tree and the ledger are known to agree."""
    ledger.set_meta(_CLEAN, value)
    ledger.commit()


def _size(told: object) -> _Size:
    """What the sender said, if it makes sense."""
    numbers = [told.get(name) for name in _Size._fields] if isinstance(told, dict) else []
    known = [number for number in numbers if isinstance(number, int) and number >= 0]
    if len(known) != len(_Size._fields):
        raise StreamError("The sender did not say how large the home area is.")
    return _Size(*known)


def _require_room(top: Fd, ledger: Ledger, size: _Size) -> None:
    """Raise NoDiskSpace before anything is sent, rather than in the middle of it."""
    _, there = ledger.totals()
    needed = max(0, size.bytes - there) + size.files * _ENTRY_BYTES + _SPARE_BYTES
    free = staging.free_bytes(top)
    if needed > free:
        raise errors.NoDiskSpace(
            f"The home area needs {needed} bytes, {free} are free where it would be stored."
        )
