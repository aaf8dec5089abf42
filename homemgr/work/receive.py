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
from functools import partial
from typing import TYPE_CHECKING

from homemgr.errors import StreamError, from_os_error
from homemgr.files import hold_space
from homemgr.record import password
from homemgr.record.storages import abilities_of, is_tree
from homemgr.storage import staging
from homemgr.storage.ledger import Ledger
from homemgr.storage.verify import require_joined
from homemgr.storage.writer import TreeWriter
from homemgr.transfer import frames
from homemgr.transfer.frames import Control
from homemgr.transfer.needs import limits_to_json
from homemgr.work.allowance import Allowance, Size
from homemgr.work.arrival import Arrival
from homemgr.work.conversation import Conversation
from homemgr.work.opening import Opening
from homemgr.work.stage import Stage, mark
from homemgr.work.staged import (
    Content,
    Place,
    become_home,
    cut_short,
    has_room_for_all,
    lacking_entries,
    prepare,
    record_in,
    require_able,
    require_room,
    require_spare,
    rules_for,
    size_of,
)
from homemgr.work.telling import Telling
from homemgr.work.wanted import words_in
from homemgr.work.write_out import WritingOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.record.model import UserRecord
    from homemgr.transfer.frames import Frame
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
        self._telling = Telling(task.channel, task.channel.require_wanted)
        self._allowance = Allowance(Size(0, 0, 0))
        #: Of what both sides had at the end of the last pass.
        self._digest = ""

    def run(self) -> dict[str, object]:
        """Hear who sends what, say what we have of it, and do what the sender then says."""
        nonce = secrets.token_hex(32)
        self._talk.tell(challenge=nonce, receiver=self._task.text("receiver"))
        said = self._talk.hear_message("introduction")
        introduction = said["introduction"]
        storage = said.get("storage")
        about = {"nonce": nonce, "introduction": introduction, "storage": storage}
        place = Place.of(self._ask("hello", **about))
        # It stays a subvolume where that is possible.
        is_subvolume = storage == "subvolume"
        opening = Opening(self._task, record_in(introduction), is_subvolume=is_subvolume)
        with ExitStack() as closing:
            if place.phase not in ("committed", "gone"):
                self._exchange_words(place, str(storage or ""), opening, record_in(introduction))
            parent = closing.enter_context(place.open_parent())
            in_vain = closing.enter_context(ExitStack())
            if place.phase == "new" and not place.is_there:
                # Refused before anything has come, it leaves nothing behind.
                in_vain.callback(place.abandon)
            stage = self._stage(closing, parent, place, opening)
            # Without a stage the tree was here before: of what changed since no flags are asked.
            limits, storable = (stage.limits(), stage.flags()) if stage else ({}, frozenset())
            rules = rules_for(self._task, introduction)._replace(flags=storable)
            self._talk.tell(
                hello={
                    "phase": place.phase,
                    "went_on": place.went_on,
                    "digest": stage.digest() if stage else "",
                    "limits": limits_to_json(limits),
                    "flags": sorted(word.decode("ascii") for word in storable),
                    "machine_id": self._task.machine.id,
                    "hostname": self._task.machine.hostname or "",
                }
            )
            said = self._talk.hear_message("go")
            if said["go"] != "passes":
                in_vain.pop_all()
            if said["go"] == "undo":
                return self._undo(parent, place)
            if said["go"] == "passes":
                if stage is None:
                    stage = self._restart(closing, parent, place, opening)
                size = size_of(said.get("size"))
                stage = self._made_for(size, stage, closing, parent, opening)
                self._require_fit(stage, limits, size, said)
                in_vain.pop_all()
                prepared = self._take_in(stage, rules, opening)
                if prepared is None:
                    return {"files": stage.ledger.totals()[0]}
                place = prepared
            elif stage is not None:
                stage.require_sealed()
            self._talk.hear("commit")
            closing.pop_all().close()
        return self._commit(place, opening)

    def _exchange_words(
        self, place: Place, there: str, opening: Opening, record: UserRecord
    ) -> None:
        """Know what unlocks the home here, and tell what does there, where it is ``there`` stored.

        The origin is trusted by now, and who sends has found out whom he speaks to.
        """
        task, has_key = self._task, abilities_of(place.storage).has_key
        if is_tree(there) and not has_key:
            return
        if task.secret.is_empty:
            # Then it was asked for where the home comes from.
            if has_key:
                self._talk.tell(unlock=place.storage)
                opening.take_words(words_in(self._talk.hear("words")))
            return
        words: Sequence[str]
        if has_key:
            words = password.require_all(
                record.on(task.machine), task.complete(task.secret, record), task.verify
            )
            opening.take_words(words)
        else:
            task.check_credentials(record)
            # What somebody tried before, which may open something else, is not for the origin.
            right = password.fitting(record.on(task.machine), task.secret, task.verify)
            words = [*task.token_words.words, *right]
        if not is_tree(there):
            self._talk.tell(words=list(words))

    def _ask(self, question: str, **about: object) -> dict[str, object]:
        return self._task.channel.ask(question, about)

    def _made_for(
        self, size: Size, stage: Stage, closing: ExitStack, parent: Fd, opening: Opening
    ) -> Stage:
        """The stage; made anew if it is an image that is empty and has too few inodes.

        How many names will come is said only to who has told what can be stored with him.
        """
        # The top directory is known of one that is empty.
        if (
            stage.place.is_tree
            or stage.ledger.totals()[0] > 1
            or not lacking_entries(stage.top, size.files)
        ):
            return stage
        stage.area.close()
        stage.place.abandon()
        opening.expect(size.files)
        made = Stage.begun(parent, stage.ledger, stage.place, opening)
        closing.enter_context(made.area)
        return made

    def _require_fit(
        self, stage: Stage, limits: Limits, size: Size, said: dict[str, object]
    ) -> None:
        """Raise NoDiskSpace or NotSupported if the home cannot be stored here."""
        self._telling.expect(size.files, size.bytes)
        # Mostly there is plenty; to find out how much has come already takes its time.
        if not has_room_for_all(stage.top, size):
            require_room(stage.top, stage.size(size), size)
        require_able(limits, said.get("needs"))
        self._allowance = Allowance(size)
        stage.ledger.limit(size.files, size.content)
        stage.may_hold()
        self._talk.tell(fits=True)

    def _stage(
        self, closing: ExitStack, parent: Fd, place: Place, opening: Opening
    ) -> Stage | None:
        """The tree as far as it came, made sure of; None once it has become a home."""
        if place.phase not in ("new", "receiving", "prepared"):
            return None
        if place.phase == "prepared" and not (place.is_there and os.path.lexists(place.ledger)):
            # It was given its name, and then we were killed. Or we do not remember what is in it.
            return None
        if place.phase == "receiving" and staging.is_there(parent, place.file_name):
            # It was given back, and is to arrive again.
            place.withdraw()
        ledger = closing.enter_context(Ledger(place.ledger))
        stage = Stage.begun(parent, ledger, place, opening)
        closing.enter_context(stage.area)
        return stage

    def _restart(self, closing: ExitStack, parent: Fd, place: Place, opening: Opening) -> Stage:
        """Take in again what was given back and then not undone at the sender."""
        if place.phase == "prepared" and place.is_there:
            # Memory of what is in it does not outlive a boot, where that is for its users alone.
            place.abandon()
            stage = self._stage(closing, parent, place._replace(phase="receiving"), opening)
            assert stage is not None
            return stage
        if place.phase != "gone":
            raise StreamError("The sender sends a home area that has arrived already.")
        with Ledger(place.ledger) as ledger:
            # Part of the tree may have been deleted by then.
            mark(ledger, is_clean=False)
        self._ask("restart")
        stage = self._stage(closing, parent, place._replace(phase="receiving"), opening)
        assert stage is not None
        return stage

    # -- the tree ---------------------------------------------------------------------------

    def _take_in(self, stage: Stage, rules: Policy, opening: Opening) -> Place | None:
        """Take passes until the sender says it was the last; None unless all is to be committed."""
        with _held_space(os.path.dirname(stage.place.ledger)) as held:
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
        return self._prepare(stage, message, opening)

    def _take_passes(self, stage: Stage, writer: TreeWriter, rules: Policy) -> dict[str, object]:
        """Take passes up to the message that says what comes after the last."""

        def count(files: int, size: int) -> None:
            require_spare(stage.top, stage.place)
            self._telling.count(files, size)

        while True:
            receive = partial(self._receive, stage)
            arrival = Arrival(writer, stage.ledger, rules, receive, count)
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
            frame = self._receive(stage)
            if isinstance(frame, Control):
                return frame.message
            if not is_marked:
                stage.mark_changing()
                is_marked = True
            arrival.take(frame)
            if time.monotonic() - settled_at > _SETTLE_S:
                # A kill then costs no more than this.
                stage.settle()
                settled_at = time.monotonic()

    def _receive(self, stage: Stage) -> Frame:
        """The next frame, which was announced."""
        while True:
            frame = self._talk.receive()
            if not isinstance(frame, Control):
                self._allowance.take(frame)
                return frame
            if "more" not in frame.message:
                return frame
            self._allow_more(stage, size_of(frame.message["more"]))

    def _allow_more(self, stage: Stage, size: Size) -> None:
        """The home has grown while it travels: go on if there is room for that too."""
        there = Size(*stage.ledger.totals())
        # The ledger counts holes as well: room for what is new there has to be in any case.
        there = there._replace(bytes=min(there.bytes, self._allowance.size.bytes))
        require_room(stage.top, there, size)
        self._allowance.size = size
        stage.ledger.limit(size.files, size.content)

    # -- becoming a home ----------------------------------------------------------------------

    def _prepare(self, stage: Stage, message: dict[str, object], opening: Opening) -> Place:
        """Be ready to become a home whenever the sender says so."""
        if "prepare" not in message:
            raise StreamError("The sender said neither that there is more nor that this is all.")
        if stage.digest() != self._digest:
            raise StreamError("The sender changed something after the last comparison.")
        stage.require_there()
        require_joined(stage.top, stage.ledger)
        opening.require_same_words(record_in({"record": message["prepare"]}))
        content = Content(message["prepare"], self._digest, message.get("seal"))
        place = prepare(self._task, stage.area, stage.place, content)
        stage.seal(self._digest)
        self._talk.tell(prepared=True)
        return place

    def _commit(self, place: Place, opening: Opening) -> dict[str, object]:
        """Make it a home: the step after which it can be used here."""
        arrived = become_home(self._task, place, opening)
        self._talk.tell(committed=arrived)
        return arrived

    def _undo(self, parent: Fd, place: Place) -> dict[str, object]:
        """Give the home back: nobody has used it here."""
        tree = staging.tree_at(parent, place.file_name)
        self._ask("undo", tree=tree)
        if tree:
            place.withdraw()
        self._talk.tell(undone=True)
        self._talk.hear("back")
        place.abandon()
        self._talk.tell(forgotten=True)
        return {}


def _held_space(directory: str) -> Fd:
    """Room for the moment when there is none left: to note down what has come so far."""
    try:
        return hold_space(directory, _HELD_BYTES)
    except OSError as error:
        raise from_os_error(error, f"Holding {_HELD_BYTES} bytes in {directory}") from error
