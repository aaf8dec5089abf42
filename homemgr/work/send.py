"""Verb send: bring a home area to another machine, over a stream that somebody else opened.

While the home is in use pass after pass travels, of a snapshot each where there can be one; the
last one, with nobody in the home, is short. Then exactly one side at a time may let the home be
used: the other side is ready for good, this side gives it up for good, the other side takes it.
The daemon keeps the phase on disk, so that the same command goes on wherever a power cut left it:

    here       sending .................... leaving ............... left
    there      receiving ....... prepared .............. committed

Between "leaving" and "committed" the home can be used nowhere; before it is used here,
after it there. See `receive` for the other side.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.kernel.btrfs import is_subvolume
from homemgr.kernel.synchronization import syncfs
from homemgr.record import password
from homemgr.storage import paths, staging
from homemgr.storage.embedded import IDENTITY
from homemgr.storage.ledger import Ledger
from homemgr.storage.snapshot import Snapshots, has_base
from homemgr.transfer.frames import Pairs
from homemgr.transfer.needs import limits_from_json, needs_to_json
from homemgr.transfer.policy import Policy
from homemgr.transfer.report import Report
from homemgr.work.allowance import Allowance, Size
from homemgr.work.cleaning import clean_home
from homemgr.work.conversation import Conversation
from homemgr.work.found import tell_record
from homemgr.work.glance import Glance, glance
from homemgr.work.mounted import mounted_in
from homemgr.work.reading import Reading
from homemgr.work.rounds import Rounds, forget_base
from homemgr.work.survey import survey
from homemgr.work.tally import Totals
from homemgr.work.telling import Telling
from homemgr.work.wanted import Options, flags_of, next_step, words_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.storage.top import Top
    from homemgr.transfer.needs import Limits, Needs
    from homemgr.work.task import Task

#: Not part of the tree: the record is made anew on arrival.
LEFT_OUT = frozenset({IDENTITY.encode(), f"{IDENTITY}.homemgr-new".encode()})

#: Passes over a home in use go on until one has sent no more than this, or so many were made.
_FEW_CHANGES = 200
_MAX_LIVE_PASSES = 5

#: Of what the other machine says so much is shown.
_SHOWN = 255

#: While the home is in use we wait this long (s) for its logout before the next pass.
_WAIT_S = 20.0


def run(task: Task) -> dict[str, object]:
    """Carry out the sender's side; gives what was sent and the report of both sides."""
    incoming, outgoing = task.fds
    with Conversation(incoming, outgoing, task.channel.require_wanted) as talk:
        return _Sender(task, talk).run()


class _Sender:
    """One run of the command, from the first word to the last."""

    def __init__(self, task: Task, talk: Conversation) -> None:
        self._task = task
        self._talk = talk
        self._options = Options.of(task)
        # A long walk waits for nobody; and who closes a home read through its use waits for us.
        self._telling = Telling(task.channel, task.channel.require_wanted)
        self._mounted = Report()
        self._rounds: Rounds | None = None
        self._allowance = Allowance(Size(0, 0, 0))
        self._offline_s = 0.0
        #: How the home looked before the other side was heard, if it was looked at.
        self._glance: Glance | None = None
        self._is_introduced = False
        #: Flags of chattr that can be stored on the other machine.
        self._flags: frozenset[bytes] = frozenset()
        #: As the daemon has it on disk.
        self._phase = task.text("phase")
        self._reading = Reading(task)
        #: Which tree, or image, this run has sent (`staging.tree_id`); empty if it has sent none.
        self._sent = ""

    def run(self) -> dict[str, object]:
        """Introduce ourselves, find out where we stand, and go on from there."""
        if self._phase == "sending" and not self._options.is_undone and self._reading.is_tree:
            self._glance = self._look()
        self._introduce()
        hello = self._hear_hello()
        path = str(self._ask("peer", **hello)["ledger"])
        went_on = str(hello.get("went_on") or "")[:_SHOWN]
        step = next_step(self._phase, str(hello.get("phase")), self._options, went_on)
        if step != "passes":
            self._talk.tell(go=step)
        if step == "undo":
            return self._undo()
        if step == "passes":
            if self._phase != "sending":
                self._come_back()
            self._flags = flags_of(hello.get("flags"))
            self._require_words()
            with self._reading, Ledger(path) as ledger:
                self._open()
                digest = str(hello.get("digest"))
                self._announce(limits_from_json(hello.get("limits")), ledger, digest)
                if not self._bring_over(ledger, digest):
                    return self._result({})
                self._sent = self._reading.tree
        if self._phase != "left":
            self._leave()
        self._talk.tell(commit=True)
        arrival = self._talk.hear_object("committed")
        self._left()
        return self._result(arrival)

    def _introduce(self) -> None:
        """Answer the challenge of the other side, once."""
        if self._is_introduced:
            return
        said = self._talk.hear_message("challenge")
        asked = {"nonce": said["challenge"], "receiver": said.get("receiver")}
        self._talk.tell(
            introduction=self._ask("introduce", **asked), storage=self._task.effective.storage
        )
        self._is_introduced = True

    def _introduce_if_asked(self) -> None:
        """Let the other side prepare itself while we go on with what we do."""
        self._task.channel.require_wanted()
        if self._talk.incoming.has_come:
            self._introduce()

    def _hear_hello(self) -> dict[str, object]:
        """What the other side says of itself; before that it may need what unlocks the home.

        Or have it, if its user was asked for it.
        """
        task = self._task
        said = self._talk.hear_message("hello", "unlock", "words")
        if "words" in said and self._options.awaits_secret:
            self._ask("words")
            task.take_words(words_in(said["words"]))
            said = self._talk.hear_message("hello", "unlock")
        if "unlock" in said:
            secret = task.complete(task.secret, task.record)
            words = password.require_all(task.effective, secret, task.verify)
            self._talk.tell(words=list(words))
            said = self._talk.hear_message("hello")
        hello = said.get("hello")
        if not isinstance(hello, dict):
            raise errors.StreamError("The other machine's 'hello' is no JSON object.")
        return hello

    # -- how it is read ------------------------------------------------------------------

    def _require_words(self) -> None:
        """Raise what is missing to open the home, before anything is sent, if it can be known.

        With nobody in it, it is opened at once; else it would be found out at the end.
        """
        if not self._reading.is_tree and (
            self._task.secret.is_empty
            or self._task.effective.token_hashes
            or not self._is_frozen(0.0)
        ):
            self._task.check_credentials(self._task.record)

    def _open(self) -> None:
        """Have the home open to be read, by now or still."""
        reading = self._reading
        if reading.is_tree and not reading.is_open:
            reading.open_tree()
        while not reading.is_open:
            # Between the two somebody may log in or out.
            if self._is_frozen(0.0):
                reading.open_alone()
            else:
                reading.open_used()

    def _ask(self, question: str, **arguments: object) -> dict[str, object]:
        return self._task.channel.ask(question, arguments)

    def _result(self, arrival: dict[str, object]) -> dict[str, object]:
        report, totals = Report(), Totals(0, 0, 0)
        if self._rounds is not None:
            report, totals = self._rounds.report, self._rounds.totals
        report.merge(self._mounted)
        if (there := arrival.get("report")) is not None:
            report.merge(Report.from_json(there))
        return {
            "files": totals.files,
            "bytes": totals.size,
            "sent_bytes": self._talk.outgoing.sent_bytes,
            "offline_s": self._offline_s,
            "uid": arrival.get("uid"),
            "report": report.to_json(),
        }

    # -- the tree ------------------------------------------------------------------------

    def _look(self) -> Glance | None:
        """Look at the home as it is now, while the machines are being connected.

        Not if an earlier run left what to compare it with: that takes less time than a look.
        """
        with self._task.open_area() as area, self._parent() as parent:
            top = area.top.fd
            if is_subvolume(top.fileno()) and has_base(parent, self._file_name):
                return None
            syncfs(top.fileno())
            has_copy = bool(self._task.argument("has_copy"))
            return glance(top, LEFT_OUT, has_copy=has_copy, meanwhile=self._introduce_if_asked)

    def _announce(self, limits: Limits, ledger: Ledger, digest: str) -> None:
        """Say what the home takes and needs; the other side ends it if that is too much there."""
        needs: Needs = {}
        if self._glance is not None and self._glance.asked.issuperset(limits):
            size, needs = self._glance.size, self._glance.needs
        elif self._glance is None and not limits and digest == ledger.digest().hex():
            # What the other side has; what has come since is announced when it is met.
            files, content = ledger.totals()
            size = Size(files, content, content)
        else:
            # Who locks a home that is read through its use must not wait for all of the names.
            see = None if self._reading.is_tree else self._require_wanted
            size, needs = survey(self._reading.top.fd, LEFT_OUT, limits, see)
        self._mounted.extend(mounted_in(self._task.effective.home_directory))
        self._telling.expect(size.files, size.bytes)
        self._allowance = Allowance(size)
        self._talk.tell(go="passes", size=size._asdict(), needs=needs_to_json(needs))
        # Nobody is kept from his home, and nothing is sent, for what cannot be stored there.
        self._talk.hear("fits")

    def _require_wanted(self, *_: bytes) -> None:
        self._task.channel.require_wanted()

    def _bring_over(self, ledger: Ledger, digest: str) -> bool:
        """Send the tree. True if the other side has all of it, and nobody can change it here."""
        with ExitStack() as closing:
            reading = self._reading
            ledger.limit(self._allowance.size.files, self._allowance.size.content)
            self._agree(ledger, digest)
            parent = closing.enter_context(self._parent())
            snapshots = closing.enter_context(
                # Of what is only opened here there is none beside it.
                Snapshots(parent, self._file_name, reading.top.fd, may_take=reading.is_tree)
            )
            rules = self._rules(reading.top)
            rounds = self._rounds = Rounds(
                self._talk, self._telling, ledger, rules, LEFT_OUT, self._allowance
            )
            rounds.resume(snapshots)
            go_round = partial(self._go_round, rounds, snapshots)
            if self._options.is_kept:
                if not rounds.is_fresh(reading.top.fd, self._glance, snapshots):
                    go_round("copying")
                    rounds.leave(snapshots)
                self._talk.tell(keep=True)
                self._talk.hear("kept")
                return False
            try:
                self._freeze(go_round)
            except errors.HomeBusy:
                rounds.leave(snapshots)
                raise
            frozen_at = time.monotonic()
            self._end_passes(rounds, go_round)
            self._offline_s = time.monotonic() - frozen_at
        return True

    def _go_round(self, rounds: Rounds, snapshots: Snapshots, phase: str) -> Totals:
        """One pass over the home, as it can be read now."""
        self._open()
        home = self._reading.top.fd
        snapshots.go_on_with(home)
        return rounds.run(home, snapshots, phase, is_in_use=not self._reading.is_alone)

    def _end_passes(self, rounds: Rounds, go_round: Callable[[str], Totals]) -> None:
        """Send the last difference, with nobody in the home, and what says that this was all."""
        self._reading.open_alone()
        clean_home(self._task, self._reading.top.fd)
        tell_record(self._task, self._reading.top)
        go_round("last pass")
        # The record once more: a password may have been changed since the first word.
        sealed = self._ask("seal", digest=rounds.digest)
        self._talk.tell(prepare=sealed["record"], seal=sealed["seal"])
        self._talk.hear("prepared")

    def _rules(self, top: Top) -> Policy:
        is_wide = self._task.effective.idmap_policy != "strict"
        return Policy(top.disk_uid, top.disk_gid, is_wide, self._flags)

    def _agree(self, ledger: Ledger, digest: str) -> None:
        """Learn what the other side has, if it is not what we know: a run may have been killed."""
        if digest == ledger.digest().hex():
            return
        self._talk.tell(pairs=True)
        ledger.agree(self._pairs())
        forget_base(ledger)
        ledger.commit()

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            frame = self._talk.receive()
            if not isinstance(frame, Pairs):
                raise errors.StreamError("The other machine should have said what it has.")
            if not frame.pairs:
                return
            yield from frame.pairs

    def _freeze(self, go_round: Callable[[str], Totals]) -> None:
        """Send what can be sent while the home is in use; then have it to ourselves."""
        deadline = time.monotonic() + self._options.wait_s
        for number in itertools.count():
            # A logout is not to wait for us where there is nothing to be read.
            self._reading.let_go()
            if self._is_frozen(0.0):
                # One pass before this would not make the last one shorter.
                return
            changes = go_round("copying").changes
            if number < _MAX_LIVE_PASSES and changes > _FEW_CHANGES:
                continue
            self._reading.let_go()
            left = deadline - time.monotonic()
            if self._is_frozen(min(left, _WAIT_S)):
                return
            if left <= 0:
                name = self._task.record.name
                raise errors.HomeBusy(
                    f"{name} is still logged in; everything up to now has been copied. Run the"
                    " same command again after the logout, or with --wait=SECONDS."
                )

    def _is_frozen(self, wait_s: float) -> bool:
        """Whether the home is ours alone from here on, perhaps after a logout within this time."""
        if wait_s > 0:
            self._telling.phase("waiting for logout")
        try:
            self._ask("freeze", wait_s=max(0.0, wait_s))
        except errors.HomeBusy:
            return False
        return True

    # -- from one owner to the other --------------------------------------------------------

    def _leave(self) -> None:
        """Give the home up. From here on only the other side may let it be used, or `undo`."""
        with self._parent() as parent:
            tree = staging.tree_at(parent, self._file_name)
            if self._sent and tree != self._sent:
                raise errors.HomeBusy(
                    f"The home area of {self._task.record.name} is another one than was sent: it"
                    " was replaced meanwhile. Nothing was given up; run the same command again."
                )
            told = self._ask("leave", tree=tree)
            staging.leave(parent, self._file_name, str(told["left_name"]), str(told["tree"]))

    def _come_back(self) -> None:
        """Have the home here again: the other side did not take it."""
        with self._parent() as parent:
            left_name, tree = self._task.text("left_name"), self._task.text("tree")
            staging.come_back(parent, left_name, self._file_name, tree)
        self._ask("come-back")

    def _left(self) -> None:
        """What is here is only kept for an undo now: the other side has confirmed."""
        self._ask("left")

    def _undo(self) -> dict[str, object]:
        self._talk.hear("undone")
        self._come_back()
        self._talk.tell(back=True)
        self._talk.hear("forgotten")
        return self._result({})

    def _parent(self) -> Fd:
        return paths.open_safe_parent(self._task.image_path)

    @property
    def _file_name(self) -> str:
        return os.path.basename(self._task.image_path)
