"""What the caller of a transfer wants, and what that means where both machines stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.transfer import flags

if TYPE_CHECKING:
    from homemgr.work.task import Task


class Options(NamedTuple):
    """What the caller wants."""

    is_kept: bool
    is_undone: bool
    #: How long to wait for the end of all sessions (s).
    wait_s: float
    #: Whether what opens the home comes through the stream.
    awaits_secret: bool = False

    @classmethod
    def of(cls, task: Task) -> Options:
        """From the request; the daemon has checked them."""
        told = task.object("options")
        wait = told.get("wait_s", 0.0)
        return cls(
            is_kept=bool(told.get("keep")),
            is_undone=bool(told.get("undo")),
            wait_s=float(wait) if isinstance(wait, int | float) else math.inf,
            awaits_secret=bool(told.get("awaits_secret")),
        )


def words_in(told: object) -> list[str]:
    """What the other side says unlocks the home; never shown in a message."""
    words = told if isinstance(told, list) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise errors.StreamError("The other machine should have sent what unlocks the home.")
    return words


def flags_of(told: object) -> frozenset[bytes]:
    """Flags that the other machine stores, of those that are carried."""
    words = [word for word in told if isinstance(word, str)] if isinstance(told, list) else []
    return frozenset(flags.CARRIED) & {word.encode("ascii", "replace") for word in words}


def next_step(here: str, there: str, options: Options, went_on: str = "") -> str:
    """What is to be done, from the phases that both sides have on disk: undo, commit or passes.

    ``went_on``: where what was sent there before is by now, if that is a third machine. Raises
    HomeMoved and HomeExists where nothing of what was asked can be done.
    """
    if went_on and here != "sending":
        raise errors.HomeMoved(
            f"The home area arrived on that machine, and went on to {went_on} from there. What is"
            " kept here can be forgotten with `homemgr transfers forget --force`."
        )
    step = _step(here, there, options)
    if step == "commit" and options.is_kept:
        raise errors.HomeMoved(
            "The home area is moving to that machine, of which a copy is no part: run the command"
            " without --keep, or with --undo."
        )
    return step


def _step(here: str, there: str, options: Options) -> str:
    if options.is_undone:
        if here == "sending":
            raise errors.HomeExists("The home area has not been moved: it is here.")
        return "undo"
    if there == "committed":
        if here == "sending":
            raise errors.HomeExists("The other machine has a home area of this user already.")
        return "commit"
    if here == "left":
        raise errors.HomeMoved(
            "The home area was moved to that machine, which does not have it any more."
            " `homemgr migrate --undo` brings back what was kept here."
        )
    return "commit" if (here, there) == ("leaving", "prepared") else "passes"
