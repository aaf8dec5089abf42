"""`homemgr deactivate USER...`: take homes away again; one in use is tried for 30 seconds."""

from __future__ import annotations

from time import sleep

from homemgr.cli.complain import complain, complain_of
from homemgr.cli.home1 import BusError, Home1, error_is, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()

#: As homectl does it: sessions that just ended need a moment to let go.
_TRIES = 30
_PAUSE_S = 1.0


def run(arguments: Arguments) -> int:
    """Deactivate each home; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = sum(not _deactivate(home1, user) for user in arguments.words)
    return int(failed > 0)


def _deactivate(home1: Home1, user: str) -> bool:
    said = ""
    for tries_left in reversed(range(_TRIES)):
        try:
            home1.call("DeactivateHome", "s", user)
        except BusError as error:
            if not error_is(error, "HomeBusy") or not tries_left:
                complain_of(f"Cannot deactivate home {user}", error)
                return False
            if error.message != said:
                # The service names who holds it: said once, and again when that changes.
                said = error.message
                complain(f"Home {user} is busy, trying again: {said}")
            sleep(_PAUSE_S)
        else:
            return True
    return False
