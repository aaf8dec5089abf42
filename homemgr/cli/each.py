"""One call for each home of a command line that needs no credentials."""

from __future__ import annotations

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments


def call_each(arguments: Arguments, member: str, doing: str) -> int:
    """Call ``member`` with each name; one that fails does not stop the others. The exit code."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for user in arguments.words:
        try:
            home1.call(member, "s", user)
        except BusError as error:
            complain_of(doing.format(user), error)
            failed = True
    return int(failed)
