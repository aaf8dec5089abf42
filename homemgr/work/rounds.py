"""Passes over one home, one after the other, each ending with the word that both sides agree.

Each reads the home as it is at one moment where that can be had, and looks only at what changed
since the last where that is known; otherwise at everything in the home itself.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.kernel.synchronization import syncfs
from homemgr.transfer.report import Report
from homemgr.transfer.selection import ALL
from homemgr.work.allowance import Announcing
from homemgr.work.difference import changed_names, has_links
from homemgr.work.glance import as_remembered
from homemgr.work.keeping import Keeping
from homemgr.work.passes import Pass, now_ns
from homemgr.work.tally import Totals

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.ledger import Ledger
    from homemgr.storage.snapshot import Moment, Snapshots
    from homemgr.transfer.policy import Policy
    from homemgr.transfer.selection import Selection
    from homemgr.work.allowance import Allowance
    from homemgr.work.conversation import Conversation
    from homemgr.work.glance import Glance
    from homemgr.work.telling import Telling

#: What the ledger remembers the base under, and what there was to report of it.
_BASE = "base"

log = logging.getLogger(__name__)


def _nothing(_: int) -> None:
    """No copy of a file that cannot change."""


def forget_base(ledger: Ledger) -> None:
    """What ``ledger`` says is not what the base had that an earlier run left."""
    ledger.set_meta(_BASE, "")


class Rounds:
    """The passes of one run; all but the progress is borrowed."""

    def __init__(
        self,
        talk: Conversation,
        telling: Telling,
        ledger: Ledger,
        rules: Policy,
        leave_out: frozenset[bytes],
        allowance: Allowance,
    ) -> None:
        """Tell the other side through ``talk`` what is not in ``ledger``, but ``leave_out``.

        ``allowance`` is what was announced to it.
        """
        self._talk = talk
        self._telling = telling
        self._ledger = ledger
        self._rules = rules
        self._leave_out = leave_out
        self._allowance = allowance
        #: Of what both sides have since the last pass.
        self.digest = ""
        #: What could not be carried over as it was, and what there is, as of the last pass.
        self.report = Report()
        self.totals = Totals(0, 0, 0)

    def resume(self, snapshots: Snapshots) -> None:
        """Have the base again that an earlier run left, if the ledger still says what it had."""
        left = self._ledger.meta(_BASE)
        if not left:
            snapshots.resume("")
            return
        token, report = json.loads(left)
        snapshots.resume(token)
        self.report = Report.from_json(report)

    def leave(self, snapshots: Snapshots) -> None:
        """Leave the base for the next run."""
        if token := snapshots.leave():
            self._ledger.set_meta(_BASE, json.dumps([token, self.report.to_json()]))
            self._ledger.commit()

    def is_fresh(self, home: Fd, found: Glance | None, snapshots: Snapshots) -> bool:
        """Whether the other side, which has what the ledger says, has the home as it is.

        It has if the home looks as the last pass left it, or nothing has changed in it since
        the base, of which the ledger has all.
        """
        if found is not None:
            totals = as_remembered(self._ledger, found)
        else:
            syncfs(home.fileno())
            totals = Totals(*self._ledger.totals(), 0) if snapshots.is_as_base() else None
        if totals is not None:
            self.totals = totals
        return totals is not None

    def run(self, home: Fd, snapshots: Snapshots, phase: str, *, is_in_use: bool) -> Totals:
        """One pass, and the word of the other side that it has the same.

        What changes while it is read is read from a copy, if the home ``is_in_use``.
        Raises StreamError if it has not.
        """
        self._telling.phase(phase)
        settled_ns = now_ns()
        syncfs(home.fileno())
        # What was announced in the pass before counts as well.
        self._ledger.limit(self._allowance.size.files, self._allowance.size.content)
        send = Keeping(self._ledger, Announcing(self._allowance, self._talk.send))
        with snapshots.taken() as moment:
            # What the ledger says from here on is not what the base had.
            forget_base(self._ledger)
            only = self._changed(snapshots.base, moment)
            one = Pass(
                moment.fd,
                self._ledger,
                self._rules,
                send,
                settled_ns,
                self._telling.count,
                only,
                snapshots.still if is_in_use and not moment.is_still else _nothing,
            )
            try:
                totals = one.run(self._leave_out)
                # Found out before the commit it is kept, and not found out again next time.
                self.digest = self._ledger.digest().hex()
            finally:
                # Also if the stream broke: what has arrived of it will not be sent again.
                self._ledger.commit()
            if only is ALL:
                self.report, self.totals = one.report, totals
            else:
                self.report.merge(one.report)
                self.totals = Totals(*self._ledger.totals(), totals.changes)
            self._compare()
            snapshots.keep(moment)
        return self.totals

    def _changed(self, base: Moment | None, moment: Moment) -> Selection | None:
        """What changed since the pass before, which the other side has all of."""
        if base is None:
            return ALL
        try:
            only = changed_names(base.fd, moment.fd)
        except (OSError, StreamError) as error:
            log.info("Btrfs does not tell what changed, everything is looked at: %s", error)
            return ALL
        return ALL if has_links(moment.fd, only, self._ledger, self._leave_out) else only

    def _compare(self) -> None:
        # It takes its time until all of it has left and the other side has it on disk.
        self._telling.pause()
        self._talk.tell(compare=self.digest)
        if self._talk.hear("has") != self.digest:
            raise StreamError(
                "What arrived differs from what was sent; nothing was changed here."
                " Run the same command again: it sends again what is different."
            )
