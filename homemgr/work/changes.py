"""What a pass tells the other side, and the ledger that is kept in step with it.

Frames are relative to a directory: one is entered only when there is something to say of it
or below it. Deletions are remembered until the end, so that what moved can be copied from
its old place. Only the old name of a file that has no other than its new one by now goes sooner:
where blocks are not shared a large directory that was renamed would take its room twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.transfer import frames
from homemgr.transfer.entry import Entry, Kind, join, split
from homemgr.transfer.seen import Seen, Sort
from homemgr.transfer.selection import ALL

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from homemgr.storage.ledger import Known, Ledger
    from homemgr.storage.reader import Step
    from homemgr.transfer.frames import Frame
    from homemgr.transfer.selection import Selection

#: Deletions that are remembered for the end of a pass; further ones happen at once.
_MAX_DELETIONS = 100_000
#: What was copied from its old place may take so much until the old one goes (bytes); less than
#: the room that the other side requires to be left. Each file counts with a block besides.
_MOST_TWICE = 8 << 20
_BLOCK = 4096
#: A change may be this much older than the time stamp that it gets (timer ticks, kernel/time).
_TICK_NS = 20_000_000


class _Level:
    """A directory on the way down."""

    __slots__ = ("entry", "is_entered", "known", "name", "only")

    def __init__(
        self,
        name: bytes,
        known: dict[bytes, Known],
        entry: Entry | None,
        only: Selection | None,
    ) -> None:
        self.name = name
        #: What of it is looked at.
        self.only = only
        #: What the other side has in it; what was met is taken out, the rest is to be deleted.
        self.known = known
        #: What is to be told about the directory itself; None if the other side has it so.
        self.entry = entry
        self.is_entered = False


class Changes:
    """What was told so far, and the directories on the way down to where the pass is."""

    def __init__(
        self,
        ledger: Ledger,
        send: Callable[[Frame], None],
        settled_ns: int,
        only: Selection | None = ALL,
        is_gone: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """Tell through ``send``; nothing is to be deleted but what is selected by ``only``.

        ``settled_ns``: a time before all that is in memory only was written out. ``is_gone`` says
        whether there is nothing any more at a path.
        """
        self.ledger = ledger
        self.send = send
        self._settled_ns = settled_ns - _TICK_NS
        self._only = only
        self._is_gone = is_gone
        #: How many changes were told.
        self.count = 0
        #: Whether the ledger has all that was met, with a proof.
        self.is_proven = True
        self._levels: list[_Level] = []
        #: First names whose file the other side made anew: its other names must follow.
        self._renewed = Seen()
        self._deletions: list[tuple[bytes, list[bytes]]] = []
        self._pending = 0
        #: Old places of files that moved, by directory, and what is there twice until they go.
        self._moved: dict[bytes, list[bytes]] = {}
        self._twice = 0

    # -- directories ------------------------------------------------------------------

    @property
    def known(self) -> dict[bytes, Known]:
        """What the other side has in the present directory and the pass has not met."""
        if self._levels:
            return self._levels[-1].known
        top = self.ledger.known(b"")
        return {} if top is None else {b"": top}

    def enter(self, step: Step, entry: Entry | None) -> None:
        """The pass goes into a directory; ``entry`` if there is something to tell of it."""
        only = self._only
        if self._levels and only is not ALL:
            above = self._levels[-1].only
            only = ALL if above is ALL else above[step.name]
        self._levels.append(_Level(step.name, self._known_in(step.path, only), entry, only))

    def _known_in(self, directory: bytes, only: Selection | None) -> dict[bytes, Known]:
        if only is ALL:
            return self.ledger.children(directory)
        found = ((name, self.ledger.known(join(directory, name))) for name in only)
        return {name: known for name, known in found if known is not None}

    def leave(self, path: bytes) -> None:
        """The pass leaves the present directory; what it has not met there is to be deleted."""
        level = self._levels[-1]
        if level.known:
            self._delete_later(path, sorted(level.known))
        if level.entry is not None:
            self._open()
        self._levels.pop()
        if level.is_entered:
            self.send(frames.Leave())

    def _open(self) -> None:
        """Go into all directories down to the present one, as far as not yet done."""
        if self._levels[-1].is_entered:
            return
        for level in self._levels:
            if not level.is_entered:
                level.is_entered = True
                self.send(frames.Enter(level.name, level.entry))
                self.count += level.entry is not None

    # -- names --------------------------------------------------------------------------

    def tell(self, frame: Frame) -> None:
        """Tell a change in the present directory."""
        self._open()
        self.count += 1
        self.send(frame)

    def renew(self, step: Step, frame: Frame) -> None:
        """Tell a change for which the other side makes a file anew."""
        if step.stat.st_nlink > 1:
            self._renewed.add(step.path, Sort.OTHER)
        self.tell(frame)

    def is_renewed(self, path: bytes) -> bool:
        """Whether the file with this first name was made anew in this pass."""
        return bool(self._renewed.sort_of(path))

    def clear(self, step: Step, known: Known | None) -> None:
        """Have a directory deleted there that is none here; all else is replaced as it is."""
        if known is not None and known.kind == Kind.DIRECTORY:
            self.tell(frames.Delete(step.name))
            self.ledger.drop(step.path)

    def lasting(self, stat: os.stat_result, mine: bytes) -> bytes:
        """The proof, unless a later change could bear the same time stamp."""
        if stat.st_ctime_ns < self._settled_ns:
            return mine
        self.is_proven = False
        return b""

    # -- deletions ----------------------------------------------------------------------

    def delete_rest(self) -> None:
        """Delete what is not here any more."""
        for directory, names in self._deletions:
            self._delete(directory, names)

    def has_moved(self, old: bytes, size: int) -> None:
        """A file of ``size`` bytes, copied by now, was at ``old``; it has one name only."""
        directory, name = split(old)
        self._moved.setdefault(directory, []).append(name)
        self._twice += size + _BLOCK
        if self._twice >= _MOST_TWICE:
            self._delete_moved()

    def _delete_moved(self) -> None:
        """Delete what moved from its old places; the walk goes on where it was."""
        for level in reversed(self._levels):
            if level.is_entered:
                self.send(frames.Leave())
                # What it looks like was told.
                level.is_entered, level.entry = False, None
        for directory, names in self._moved.items():
            if gone := [name for name in names if self._is_to_go(join(directory, name))]:
                self._delete(directory, gone)
        self._moved.clear()
        self._twice = 0

    def _is_to_go(self, path: bytes) -> bool:
        """Whether the other side has something there that is not here.

        It may have lost it with a directory in the place of which something else was met. And in a
        snapshot within the home each file is as in what that is of, which is still there.
        """
        return self.ledger.known(path) is not None and self._is_gone(path)

    def _delete(self, directory: bytes, names: list[bytes]) -> None:
        """Delete names in a directory, all the way from the top, where the pass is."""
        above = [b"", *directory.split(b"/")] if directory else [b""]
        for name in above:
            self.send(frames.Enter(name, None))
        for name in names:
            self.send(frames.Delete(name))
            self.ledger.drop(join(directory, name))
        for _ in above:
            self.send(frames.Leave())
        self.count += len(names)

    def _delete_later(self, directory: bytes, names: list[bytes]) -> None:
        """Have ``names`` deleted at the end of the pass, or at once if there are too many."""
        if self._pending + len(names) <= _MAX_DELETIONS:
            self._deletions.append((directory, names))
            self._pending += len(names)
            return
        for name in names:
            self.tell(frames.Delete(name))
            self.ledger.drop(join(directory, name))
