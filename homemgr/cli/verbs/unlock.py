"""`homemgr unlock USER...`: make locked homes readable again, asking for what unlocks them."""

from __future__ import annotations

from homemgr.cli.home1 import Home1
from homemgr.cli.verbs.activate import unlock_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Unlock each home; one that fails does not stop the others."""
    return unlock_each(Home1(arguments), arguments.words, "UnlockHome", "Cannot unlock home {}")
