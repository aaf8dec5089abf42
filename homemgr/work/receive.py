"""Verb receive: take a home area in that another machine sends over a stream.

What arrives is kept under a name that is no home's. It becomes one in a single step at the
end, when all of it is on disk and the other side has given it up; see `send` for the phases
of both sides. A stream that breaks leaves what came so far for the next run, a stream that
makes no sense changes nothing else.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.storage import staging
from homemgr.storage.ledger import Ledger
from homemgr.storage.reserve import hold_space
from homemgr.storage.verify import require_joined
from homemgr.storage.writer import TreeWriter
from homemgr.transfer import frames
from homemgr.transfer.frames import Control
from homemgr.transfer.needs import limits_to_json
from homemgr.work.allowance import Allowance, Size
from homemgr.work.arrival import Arrival
from homemgr.work.conversation import Conversation
from homemgr.work.stage import Stage, mark
from homemgr.work.staged import (
    Content,
    Place,
    become_home,
    cut_short,
    prepare,
    require_able,
    require_room,
    require_spare,
    rules_for,
    size_of,
)
from homemgr.work.telling import Telling
from homemgr.work.write_out import WritingOut

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.transfer.needs import Limits
    from homemgr.transfer.policy import Policy
    from homemgr.work.task import Task

#: What came is made durable at least so often (s): it has to be sent again after a kill.
_SETTLE_S = 10.0

#: Held back for the ledger, which may be on the disk that fills up (bytes).
_HELD_BYTES = 8 << 20


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
        self._allowance = Allowance(Size(0, 0, 0))
        #: Of what both sides had at the end of the last pass.
        self._digest = ""
        #: Whether the home is one at the sender: it stays one where that is possible.
        self._is_subvolume = False

    def run(self) -> dict[str, object]:
        """Hear who sends what, say what we have of it, and do what the sender then says."""
        nonce = secrets.token_hex(32)
        self._talk.tell(challenge=nonce, receiver=self._task.text("receiver"))
        said = self._talk.hear_message("introduction")
        introduction = said["introduction"]
        self._is_subvolume = said.get("storage") == "subvolume"
        place = Place.of(self._ask("hello", nonce=nonce, introduction=introduction))
        with ExitStack() as closing:
            parent = closing.enter_context(place.open_parent())
            stage = self._stage(closing, parent, place)
            # Without a stage the tree was here before: of what changed since no flags are asked.
            limits, storable = (stage.limits(), stage.flags()) if stage else ({}, frozenset())
            rules = rules_for(self._task, introduction)._replace(flags=storable)
            self._talk.tell(
                hello={
                    "phase": place.phase,
                    "digest": stage.digest() if stage else "",
                    "limits": limits_to_json(limits),
                    "flags": sorted(word.decode("ascii") for word in storable),
                    "machine_id": self._task.machine.id,
                    "hostname": self._task.machine.hostname or "",
                }
            )
            said = self._talk.hear_message("go")
            if said["go"] == "undo":
                return self._undo(parent, place)
            if said["go"] == "passes":
                if stage is None:
                    stage = self._restart(closing, parent, place)
                self._require_fit(stage, limits, said)
                prepared = self._take_in(stage, rules)
                if prepared is None:
                    return {"files": stage.ledger.totals()[0]}
                place = prepared
            elif stage is not None:
                stage.require_sealed()
            self._talk.hear("commit")
            closing.pop_all().close()
        return self._commit(place)

    def _ask(self, question: str, **about: object) -> dict[str, object]:
        return self._task.channel.ask(question, about)

    def _require_fit(self, stage: Stage, limits: Limits, said: dict[str, object]) -> None:
        """Raise NoDiskSpace or NotSupported if the home cannot be stored here."""
        size = size_of(said.get("size"))
        self._telling.expect(size.files, size.bytes)
        require_room(stage.top, stage.size(size), size)
        require_able(limits, said.get("needs"))
        self._allowance = Allowance(size)
        stage.ledger.limit(size.files, size.content)
        stage.may_hold()
        self._talk.tell(fits=True)

    def _stage(self, closing: ExitStack, parent: Fd, place: Place) -> Stage | None:
        """The tree as far as it came, made sure of; None once it has become a home."""
        if place.phase not in ("new", "receiving", "prepared"):
            return None
        if place.phase == "prepared" and not staging.is_there(parent, place.stage_name):
            # It was given its name, and then we were killed.
            return None
        if place.phase == "receiving" and staging.is_there(parent, place.file_name):
            # It was given back, and is to arrive again.
            staging.withdraw(parent, place.file_name, place.stage_name, place.tree)
        ledger = closing.enter_context(Ledger(place.ledger))
        stage = Stage.begun(parent, ledger, place, is_subvolume=self._is_subvolume)
        closing.enter_context(stage.top)
        return stage

    def _restart(self, closing: ExitStack, parent: Fd, place: Place) -> Stage:
        """Take in again what was given back and then not undone at the sender."""
        if place.phase != "gone":
            raise StreamError("The sender sends a home area that has arrived already.")
        with Ledger(place.ledger) as ledger:
            # Part of the tree may have been deleted by then.
            mark(ledger, is_clean=False)
        self._ask("restart")
        stage = self._stage(closing, parent, place._replace(phase="receiving"))
        assert stage is not None
        return stage

    # -- the tree ---------------------------------------------------------------------------

    def _take_in(self, stage: Stage, rules: Policy) -> Place | None:
        """Take passes until the sender says it was the last; None unless all is to be committed."""
        with hold_space(os.path.dirname(stage.place.ledger), _HELD_BYTES) as held:
            try:
                with WritingOut(stage.top), TreeWriter(stage.top) as writer:
                    message = self._take_passes(stage, writer, rules)
            except BaseException as error:
                # What has come will not be sent again, also if the disk is full now.
                held.close()
                stage.save()
                if isinstance(error, OSError):
                    raise cut_short(error, stage.place) from error
                raise
        stage.settle()
        if "keep" in message:
            stage.mark_clean()
            self._talk.tell(kept=True)
            return None
        return self._prepare(stage, message)

    def _take_passes(self, stage: Stage, writer: TreeWriter, rules: Policy) -> dict[str, object]:
        """Take passes up to the message that says what comes after the last."""

        def count(files: int, size: int) -> None:
            require_spare(stage.top, stage.place)
            self._telling.count(files, size)

        while True:
            arrival = Arrival(writer, stage.ledger, rules, self._talk.receive, count)
            message = self._one_pass(stage, arrival)
            if "compare" in message:
                arrival.require_complete()
                self._digest = stage.digest()
                stage.settle()
                self._talk.tell(has=self._digest)
            elif "pairs" in message:
                for frame in frames.in_frames(stage.ledger.pairs()):
                    self._talk.send(frame)
                self._talk.flush()
            else:
                return message

    def _one_pass(self, stage: Stage, arrival: Arrival) -> dict[str, object]:
        """Take changes up to the next message."""
        settled_at = time.monotonic()
        self._allowance.begin()
        is_marked = False
        while True:
            frame = self._talk.receive()
            if isinstance(frame, Control):
                if "more" not in frame.message:
                    return frame.message
                self._allow_more(stage, size_of(frame.message["more"]))
                continue
            self._allowance.take(frame)
            if not is_marked:
                stage.mark_changing()
                is_marked = True
            arrival.take(frame)
            if time.monotonic() - settled_at > _SETTLE_S:
                # A kill then costs no more than this.
                stage.settle()
                settled_at = time.monotonic()

    def _allow_more(self, stage: Stage, size: Size) -> None:
        """The home has grown while it travels: go on if there is room for that too."""
        require_room(stage.top, Size(*stage.ledger.totals()), size)
        self._allowance.size = size
        stage.ledger.limit(size.files, size.content)

    # -- becoming a home ----------------------------------------------------------------------

    def _prepare(self, stage: Stage, message: dict[str, object]) -> Place:
        """Be ready to become a home whenever the sender says so."""
        if "prepare" not in message:
            raise StreamError("The sender said neither that there is more nor that this is all.")
        if stage.digest() != self._digest:
            raise StreamError("The sender changed something after the last comparison.")
        require_joined(stage.top, stage.ledger)
        content = Content(message["prepare"], self._digest, message.get("seal"))
        place = prepare(self._task, stage.top, stage.place, content)
        stage.seal(self._digest)
        self._talk.tell(prepared=True)
        return place

    def _commit(self, place: Place) -> dict[str, object]:
        """Make it a home: the step after which it can be used here."""
        arrived = become_home(self._task, place)
        self._talk.tell(committed=arrived)
        return arrived

    def _undo(self, parent: Fd, place: Place) -> dict[str, object]:
        """Give the home back: nobody has used it here."""
        tree = staging.tree_at(parent, place.file_name)
        self._ask("undo", tree=tree)
        if tree:
            staging.withdraw(parent, place.file_name, place.stage_name, place.tree)
        self._talk.tell(undone=True)
        self._talk.hear("back")
        staging.abandon(parent, place.stage_name)
        self._talk.tell(forgotten=True)
        return {}
