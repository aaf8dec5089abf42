"""`homemgr authenticate [USER...]`: check credentials, leave everything as it is."""

from __future__ import annotations

from homemgr.cli.home1 import Home1, own_name
from homemgr.cli.verbs.activate import unlock_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Check each user; without a name the caller."""
    users = arguments.words or [own_name()]
    return unlock_each(Home1(arguments), users, "AuthenticateHome", "Cannot authenticate home {}")
