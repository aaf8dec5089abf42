"""One pass of a home's tree over to the other machine: what changed, and nothing else.

The ledger tells what the other side has at each path, and how the file looked here when it
was read (its proof). A file whose proof still holds is not read again. What the other
side has under another name is copied there, not sent; of a large file that changed only the changed
blocks travel. Deletions come last, so that what moved can be copied from its old place.

May run while the home is in use: a file that changes while it is read has no proof, and
the next pass reads it again.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.storage import reader
from homemgr.storage.first_names import FirstNames
from homemgr.storage.ledger import Ledger, Row, proof
from homemgr.storage.writer import open_directory
from homemgr.transfer import codec, frames, policy
from homemgr.transfer.entry import Entry, Kind, split
from homemgr.transfer.report import Report
from homemgr.transfer.selection import ALL
from homemgr.work import glance
from homemgr.work.changes import Changes
from homemgr.work.contents import Contents
from homemgr.work.glance import Sight
from homemgr.work.tally import Tally, Totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.files import Fd
    from homemgr.storage.ledger import Known
    from homemgr.storage.reader import Step
    from homemgr.transfer.frames import Frame
    from homemgr.transfer.selection import Selection
    from homemgr.work.contents import Shared


class Pass:
    """One walk. ``settled_ns`` is a time before all that is in memory only was written out.

    With ``only`` it is through what is selected: all else is as the ledger has it, and no file
    that is selected has other names.
    """

    def __init__(
        self,
        top: Fd,
        ledger: Ledger,
        rules: policy.Policy,
        send: Callable[[Frame], None],
        settled_ns: int,
        progress: Callable[[int, int], None],
        only: Selection | None = ALL,
        still: Callable[[int], Fd | None] = lambda _: None,
        share: Callable[[Shared], None] | None = None,
    ) -> None:
        """Walk below ``top``; ``progress`` is told of entries and bytes that were dealt with.

        ``still`` gives what an open file holds at one moment, if that can be had; ``share``
        takes whole files in the place of their content.
        """
        self._top = top
        self._ledger = ledger
        self._rules = rules
        self.report = Report()
        self._tally = Tally(progress)
        self._only = only
        self._changes = Changes(ledger, send, settled_ns, only, self._is_gone)
        self._contents = Contents(self._changes, self._tally, self.report, still, share)
        self._sight = Sight()
        self._first = FirstNames()

    def run(self, leave_out: frozenset[bytes]) -> Totals:
        """Walk the tree once; ``leave_out`` are paths that do not travel."""
        for step in reader.walk(self._top, leave_out=leave_out, only=self._only):
            try:
                if step.what == reader.ENTRY:
                    self._entry(step)
                elif step.what == reader.ENTER:
                    self._enter(step)
                else:
                    self._changes.leave(step.path)
            except reader.NAMELESS as error:
                reader.note_path(error, step.path)
                raise
        self._changes.delete_rest()
        self._tally.tell()
        totals = Totals(self._tally.files, self._tally.bytes, self._changes.count)
        # A note is given anew each time: of what does not travel the ledger knows nothing.
        if self._only is ALL and self._changes.is_proven and not self.report.counts:
            glance.remember(self._ledger, self._sight, totals)
        return totals

    def _is_gone(self, path: bytes) -> bool:
        """Whether there is nothing at a path; False where that cannot be found out."""
        directory, name = split(path)
        try:
            with open_directory(self._top, directory) as parent:
                os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return True
        except StreamError as error:
            return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
        except OSError:
            return False
        return False

    # -- directories ------------------------------------------------------------------

    def _enter(self, step: Step) -> None:
        self._tally.files += 1
        known = self._changes.known.pop(step.name, None)
        mine = proof(step.stat)
        self._sight.take(step.path, mine)
        entry = None
        if known is None or known.proof != mine:
            entry = self._directory(step, known, mine)
        self._changes.enter(step, entry)

    def _directory(self, step: Step, known: Known | None, mine: bytes) -> Entry | None:
        """What to tell about a directory that may have changed; None if nothing."""
        entry = self._sanitised(step)
        assert entry is not None  # a directory always travels
        if known is not None and known.signature == codec.signature(entry, b""):
            self._ledger.touch(step.path, self._changes.lasting(step.stat, mine))
            return None
        self._ledger.put(step.path, Row(entry, b"", b"", self._changes.lasting(step.stat, mine)))
        return entry

    # -- all else -----------------------------------------------------------------------

    def _entry(self, step: Step) -> None:
        here = self._changes.known
        known = here.pop(step.name, None)
        self._tally.entry()
        mine = proof(step.stat)
        self._sight.take(step.path, mine)
        if step.stat.st_nlink > 1 and self._is_further_name(step, known, mine):
            return
        if known is not None and known.proof == mine and known.kind != Kind.LINK:
            self._tally.bytes += step.stat.st_size
            return
        if self._is_told(step, known, mine):
            return
        self._changes.is_proven = False
        if known is not None:
            # Not here any more, or nothing that travels.
            here[step.name] = known

    def _is_told(self, step: Step, known: Known | None, mine: bytes) -> bool:
        """Tell of what is new or changed; False if there is nothing that could travel."""
        try:
            if stat.S_ISREG(step.stat.st_mode):
                with reader.open_content(step) as file:
                    entry = self._sanitised(step, file)
                    assert entry is not None  # a file always travels
                    self._contents.file(step, entry, known, file.fileno(), mine)
                return True
            entry = self._sanitised(step)
            if entry is None:
                return False
            self._node(step, entry, known, mine)
        except reader.FileVanished:
            return False
        return True

    def _is_further_name(self, step: Step, known: Known | None, mine: bytes) -> bool:
        """Tell that this is another name of a file that was there already."""
        first = self._first.meet(step.stat, step.path)
        if first == step.path:
            return False
        if self._ledger.known(first) is None:
            # The first name vanished, or did not travel: neither can this one be linked.
            self._first.put(step.stat, step.path)
            return False
        entry = Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, first, ())
        signature = codec.signature(entry, b"")
        if known is None or known.signature != signature or self._changes.is_renewed(first):
            self._changes.clear(step, known)
            self._changes.tell(frames.Node(step.name, entry))
            self._ledger.put(step.path, Row(entry, b"", b"", mine))
        elif known.proof != mine:
            self._ledger.touch(step.path, mine)
        return True

    def _node(self, step: Step, entry: Entry, known: Known | None, mine: bytes) -> None:
        row = Row(entry, b"", b"", self._changes.lasting(step.stat, mine))
        if known is None or known.signature != codec.signature(entry, b""):
            self._changes.clear(step, known)
            self._changes.renew(step, frames.Node(step.name, entry))
        self._ledger.put(step.path, row)

    def _sanitised(self, step: Step, opened: Fd | None = None) -> Entry | None:
        found = reader.read_entry(step, opened)
        entry, notes = policy.sanitise(step.path, found, self._rules)
        for note in notes:
            self.report.add(note)
        return entry


def now_ns() -> int:
    """The clock that files get their times from."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)
