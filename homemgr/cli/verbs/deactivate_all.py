"""`homemgr deactivate-all`: what the activation unit does at shutdown."""

from __future__ import annotations

from homemgr.cli.home1 import Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Deactivate every active home."""
    home1 = Home1(arguments)
    with_agent(home1)
    home1.call("DeactivateAllHomes")
    return 0
