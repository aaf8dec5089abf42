"""`homemgr activate USER...`: make homes available, asking for what unlocks them."""

from __future__ import annotations

from homemgr.cli.arguments import Option
from homemgr.cli.complain import Reported
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.home1 import Home1, Homemgr1, Reply, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option(
        "home-mode",
        "",
        "normal|ephemeral|read-only",
        "What becomes of all that is written, this time",
    ),
)

_DOING = "Cannot activate home {}"


def run(arguments: Arguments) -> int:
    """Activate each home; one that fails does not stop the others."""
    mode = arguments.value("home-mode")
    if not mode:
        return unlock_each(Home1(arguments), arguments.words, "ActivateHome", _DOING)
    service = Homemgr1(arguments)
    return unlock_each(service, arguments.words, "ActivateHomeInMode", _DOING, mode)


def unlock_each(home1: Home1, users: list[str], member: str, doing: str, *more: str) -> int:
    """Call ``member`` with the credentials of each user, and what else it takes."""
    with_agent(home1)
    failed = False
    for user in users:
        credentials = Credentials.from_environment()

        def call(user: str = user, credentials: Credentials = credentials) -> Reply:
            return home1.call(member, "ss" + "s" * len(more), user, credentials.to_json(), *more)

        try:
            unlock(user, credentials, call, doing.format(user), may_ask=home1.may_ask)
        except Reported:
            failed = True
    return int(failed)
