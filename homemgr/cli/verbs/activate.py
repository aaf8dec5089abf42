"""`homemgr activate USER...`: make homes available, asking for what unlocks them."""

from __future__ import annotations

from homemgr.cli.complain import Reported
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.home1 import Home1, Reply, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Activate each home; one that fails does not stop the others."""
    return unlock_each(arguments, arguments.words, "ActivateHome", "Cannot activate home {}")


def unlock_each(arguments: Arguments, users: list[str], member: str, doing: str) -> int:
    """Call ``member`` with the credentials of each user."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for user in users:
        credentials = Credentials.from_environment()

        def call(user: str = user, credentials: Credentials = credentials) -> Reply:
            return home1.call(member, "ss", user, credentials.to_json())

        try:
            unlock(user, credentials, call, doing.format(user), may_ask=home1.may_ask)
        except Reported:
            failed = True
    return int(failed)
