"""`homemgr unregister USER...`: forget users, and leave the files of their homes alone."""

from __future__ import annotations

from homemgr.cli.each import call_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Forget each user."""
    return call_each(arguments, "UnregisterHome", "Cannot unregister home {}")
