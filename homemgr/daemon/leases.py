"""What a transfer keeps from happening to a home meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.states import Operation

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

#: What would take a home away from under a transfer that reads it, or put another in its place.
_DESTRUCTIVE = frozenset(
    {
        *(Operation.REMOVE, Operation.UNREGISTER, Operation.ADOPT),
        *(Operation.RESTORE, Operation.CONVERT, Operation.CONVERT_BACK),
    }
)
#: What a transfer itself does.
_OWN = frozenset({Operation.FREEZE})
#: What does not touch a home that is being made anew.
_BESIDE = frozenset({Operation.CONVERT, Operation.CONVERT_BACK, Operation.INSPECT})
#: Ends a use that began before; nothing to gain by refusing.
_ENDING = frozenset({Operation.DEACTIVATE, Operation.RELEASE, Operation.LOSE})


@dataclass(frozen=True)
class Lease:
    """Refuses operations with ``error`` and ``text``: those named, or all but the harmless."""

    error: type[errors.HomeError]
    text: str
    refused: AbstractSet[Operation]

    @property
    def has_moved(self) -> bool:
        """Whether the home is another machine's: nothing of it is to be saved here."""
        return self.error is errors.HomeMoved

    @property
    def is_of_transfer(self) -> bool:
        """Whether the end of a transfer ends it too: what a conversion holds, that lets go."""
        return Operation.CONVERT in self.refused

    def check(self, operation: Operation) -> None:
        """Raise the failure if ``operation`` must wait for the end of the transfer."""
        if operation in self.refused:
            raise self.error(self.text)


def while_read(user: str, host: str) -> Lease:
    """A home of which a copy is being made: it may be used, but must not go away or be replaced."""
    text = f"Home area {user} is being copied to {host}; wait for the end or cancel that."
    return Lease(errors.TransferBusy, text, _DESTRUCTIVE)


def moved(text: str) -> Lease:
    """A home that is another machine's by now: nothing can be done with it here."""
    everything = frozenset(Operation) - _OWN - _ENDING
    return Lease(errors.HomeMoved, text, everything)


def while_converted(text: str) -> Lease:
    """A home that is made anew from what it holds: it cannot be used until that is done."""
    everything = frozenset(Operation) - _BESIDE - _ENDING
    return Lease(errors.TransferBusy, text, everything)
