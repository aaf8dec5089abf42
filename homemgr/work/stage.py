"""A tree that is arriving, and what its ledger notes about it besides the names.

Tree and ledger are two things on disk, which a kill can tear apart: the ledger says whether
they are known to agree, and a tree of which that is not known is looked through again.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeError, StreamError
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.synchronization import syncfs
from homemgr.storage.abilities import probe, storable_flags
from homemgr.storage.verify import verify
from homemgr.transfer import flags
from homemgr.work.allowance import Size
from homemgr.work.send import LEFT_OUT
from homemgr.work.staged import id_of
from homemgr.work.survey import survey

if TYPE_CHECKING:
    from homemgr.storage.kind import Area
    from homemgr.storage.ledger import Ledger
    from homemgr.transfer.needs import Limits
    from homemgr.work.opening import Opening
    from homemgr.work.staged import Place

log = logging.getLogger(__name__)

#: Says in the ledger whether nothing was changed since files and ledger were made to agree.
_CLEAN = "clean"

#: In the ledger which tree or image, of all that lay in that place, it is about.
_TREE = "tree"

#: In the ledger for which hashes (a digest) what needs a word was made; empty until it is.
_HASHES = "hashes"

#: Says in the ledger whether the file system was found to be able to hold the home.
_ABLE = "able"

#: In the ledger the flags of chattr that the file system stores.
_FLAGS = "flags"

#: In the ledger the digest (hex) of the files that the origin sealed.
_SEALED = "sealed"


class Stage(NamedTuple):
    """The tree that is arriving."""

    area: Area
    ledger: Ledger
    place: Place

    @classmethod
    def begun(cls, parent: Fd, ledger: Ledger, place: Place, opening: Opening) -> Stage:
        """The tree as far as it came, made sure of; empty if there is none yet."""
        area = opening.found(place, parent, ledger.meta(_HASHES) or "")
        if area is None:
            # What was known of a tree that is gone is forgotten before there is another one.
            ledger.drop(b"")
            for key in (_ABLE, _CLEAN, _HASHES, _SEALED):
                ledger.set_meta(key, "")
            ledger.commit()
            area = opening.made(place, parent)
            ledger.set_meta(_HASHES, opening.hashes)
        stage = cls(area, ledger, place)
        try:
            tree = id_of(place)
            is_of_it = ledger.meta(_CLEAN) == "yes" and ledger.meta(_TREE) == tree
            if not is_of_it or not stage.is_as_known():
                verify(area.top.fd, ledger, LEFT_OUT)
                ledger.set_meta(_TREE, tree)
                ledger.commit()
        except BaseException:
            area.close()
            raise
        return stage

    @property
    def top(self) -> Fd:
        """Its top directory."""
        return self.area.top.fd

    def is_as_known(self) -> bool:
        """Whether at least the top has those names that the ledger has; the rest is not read."""
        # Opened anew: btrfs shows who lists a directory only what was in it when it was opened.
        with Fd.open(".", DIRECTORY_FLAGS, dir_fd=self.top.fileno()) as top:
            names = {os.fsencode(name) for name in os.listdir(top.fileno())}
        return names - LEFT_OUT == self.ledger.children(b"").keys()

    def require_there(self) -> None:
        """Raise StreamError if what is on disk is not what the ledger has: it is no home then."""
        if not self.is_as_known():
            self.mark_changing()
            raise StreamError(
                "What has arrived is not on disk as it was noted down; run the command again to"
                " have what is missing sent."
            )

    def limits(self) -> Limits:
        """What the file system cannot do; nothing once it was found to do for this home."""
        return {} if self.ledger.meta(_ABLE) == "yes" else probe(self.top)

    def flags(self) -> frozenset[bytes]:
        """The flags of chattr that can be stored."""
        known = self.ledger.meta(_FLAGS) if self.ledger.meta(_ABLE) == "yes" else None
        if known is None:
            known = flags.joined(storable_flags(self.top)).decode("ascii")
            self.ledger.set_meta(_FLAGS, known)
        return frozenset(known.encode("ascii").split(b",")) & flags.CARRIED.keys()

    def digest(self) -> str:
        """What the sender compares with its own."""
        return self.ledger.digest().hex()

    def require_sealed(self) -> None:
        """Raise StreamError if a run that did not come to its end changed what was sealed."""
        if self.ledger.meta(_SEALED) != self.digest():
            raise StreamError(
                "What has arrived is not what was sealed; run the command with --undo, and move"
                " the home area again."
            )

    def settle(self) -> None:
        """Have on disk what the ledger says: files first, if any came since they agreed."""
        if self.ledger.meta(_CLEAN) != "yes":
            syncfs(self.top.fileno())
        self.ledger.commit()

    def save(self) -> None:
        """Settle after a failure; what cannot be noted down comes again, which is no other one."""
        try:
            self.settle()
        except (HomeError, OSError) as error:
            log.warning("What has arrived will be sent again: %s", error)

    def size(self, announced: Size) -> Size:
        """How much of a home of the ``announced`` size is there."""
        known = Size(*self.ledger.totals())
        if announced.content <= announced.bytes:
            return known
        # Holes are not stored, and the ledger does not know how much of its files they are.
        return survey(self.top, LEFT_OUT, ())[0] if known.files else known

    def may_hold(self) -> None:
        """Note that the file system can hold the home."""
        if self.ledger.meta(_ABLE) != "yes":
            self.ledger.set_meta(_ABLE, "yes")
            self.ledger.commit()

    def seal(self, digest: str) -> None:
        """Note what the origin has sealed, and that tree and ledger agree on it."""
        self.ledger.set_meta(_SEALED, digest)
        self.mark_clean()
        self.ledger.commit()

    def mark_clean(self) -> None:
        """Note that tree and ledger agree, all of it being on disk."""
        mark(self.ledger, is_clean=True)

    def mark_changing(self) -> None:
        """Note that from here on the tree may be ahead of the ledger."""
        mark(self.ledger, is_clean=False)


def mark(ledger: Ledger, *, is_clean: bool) -> None:
    """Note whether the tree and the ledger are known to agree."""
    word = "yes" if is_clean else "no"
    if ledger.meta(_CLEAN) != word:
        ledger.set_meta(_CLEAN, word)
        ledger.commit()
