"""A look at a home while the other machine is still being reached: what is to be sent, if anything?

A pass leaves in its ledger what it saw: a digest of the path and the `proof` of every name,
in walk order. A home that looks the same is as the other side has it, if that has what the
ledger says, and need not be walked through again, name by name beside the ledger.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from homemgr.transfer.needs import Ability
from homemgr.work.survey import survey
from homemgr.work.tally import Totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.files import Fd
    from homemgr.storage.ledger import Ledger
    from homemgr.transfer.needs import Needs
    from homemgr.work.allowance import Size

#: What file systems that hold homes may be short of. Others are asked about only if they are.
LIKELY = frozenset(Ability) - {Ability.ODD_NAMES, Ability.ALIKE_NAMES}

#: What the ledger remembers it under.
_SEEN = "seen"

#: Between how many names somebody else has his turn: every few milliseconds.
_TURN = 0x1FF


class Sight:
    """What a walk has seen so far. Two walks with equal digests have seen the same."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._state = sha256()

    def take(self, path: bytes, mark: bytes) -> None:
        """See a name, with its `proof`, which is of one length."""
        self._state.update(path + b"\0" + mark)

    def digest(self) -> str:
        """Of all that was seen."""
        return self._state.hexdigest()


class Glance(NamedTuple):
    """How a home looked, how large it is, and what it needs of some abilities."""

    sight: str
    size: Size
    needs: Needs
    asked: frozenset[Ability]


def glance(
    top: Fd, leave_out: frozenset[bytes], *, has_copy: bool, meanwhile: Callable[[], None]
) -> Glance:
    """Look at all names below ``top`` but those in ``leave_out``.

    If the other side ``has_copy`` it does not ask again what the home needs. What is in memory
    only has to be written out before: a file that is mapped gets its new times only then.
    ``meanwhile`` is called again and again, and may raise.
    """
    asked = frozenset() if has_copy else LIKELY
    sight = Sight()
    count = 0

    def see(path: bytes, mark: bytes) -> None:
        nonlocal count
        sight.take(path, mark)
        count += 1
        if not count & _TURN:
            meanwhile()

    size, needs = survey(top, leave_out, asked, see)
    return Glance(sight.digest(), size, needs, asked)


def remember(ledger: Ledger, sight: Sight, totals: Totals) -> None:
    """Note how the home looks that ``ledger`` has all of; followed by a commit it is kept."""
    ledger.remember(_SEEN, json.dumps([sight.digest(), totals.files, totals.size]))


def as_remembered(ledger: Ledger, found: Glance) -> Totals | None:
    """What the last pass met, if the home still looks as it did then."""
    text = ledger.remembered(_SEEN)
    if text is None:
        return None
    sight, files, size = json.loads(text)
    return Totals(files, size, 0) if sight == found.sight else None
