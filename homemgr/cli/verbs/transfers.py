"""`homemgr transfers [list|forget USER]`: homes on their way, and those that left or came."""

from __future__ import annotations

import json

from homemgr.cli import transfer_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.home1 import Homemgr1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option("remove", "", "", "forget: delete what it left here, too"),
    Option("force", "", "", "forget: also if the home may be here; then it is not"),
)


def run(arguments: Arguments) -> int:
    """List them, or forget one."""
    command, *words = arguments.words or ["list"]
    service = Homemgr1(arguments)
    if command == "list" and not words:
        return transfer_text.listed(service, arguments, "ListTransfers", transfer_text.transfers)
    if command != "forget" or len(words) != 1:
        raise UsageError("Expected `homemgr transfers [list|forget USER]`.")
    with_agent(service)
    wanted = {name: True for name in ("remove", "force") if arguments.has(name)}
    service.call("ForgetTransfer", "ss", words[0], json.dumps(wanted))
    return 0
