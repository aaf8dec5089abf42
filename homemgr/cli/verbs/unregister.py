"""`homemgr unregister USER...`: forget users, and leave the files of their homes alone."""

from __future__ import annotations

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Forget each user; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for user in arguments.words:
        try:
            home1.call("UnregisterHome", "s", user)
        except BusError as error:
            complain_of(f"Cannot unregister home {user}", error)
            failed = True
    return int(failed)
