"""`homemgr rebalance`: share free space out among homes whose images have sizes of their own."""

from __future__ import annotations

import sys

from homemgr.cli.home1 import BusError, Home1, error_is, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Have it done now; as with homectl it is no failure if no home needs it."""
    home1 = Home1(arguments)
    with_agent(home1)
    try:
        home1.call("Rebalance")
    except BusError as error:
        if not error_is(error, "RebalanceNotNeeded"):
            raise
        print("No home needs rebalancing.", file=sys.stderr)
    return 0
