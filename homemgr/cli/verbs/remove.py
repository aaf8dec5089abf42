"""`homemgr remove USER...`: delete homes with their files and records."""

from __future__ import annotations

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Remove each home; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for user in arguments.words:
        try:
            home1.call("RemoveHome", "s", user)
        except BusError as error:
            complain_of(f"Cannot remove home {user}", error)
            failed = True
    return int(failed)
