"""`homemgr origins [list|trust FINGERPRINT|forget FINGERPRINT]`: machines that may send homes."""

from __future__ import annotations

import json

from homemgr.cli import transfer_text
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.home1 import Homemgr1, with_agent
from homemgr.cli.trust import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (Option("name", "", "HOST", "trust: how the machine is called in the list"),)


def run(arguments: Arguments) -> int:
    """List them, trust one, or trust one no longer."""
    command, *words = arguments.words or ["list"]
    service = Homemgr1(arguments)
    if command == "list" and not words:
        return transfer_text.listed(service, arguments, "ListOrigins", transfer_text.origins)
    if command not in ("trust", "forget") or len(words) != 1:
        raise UsageError("Expected `homemgr origins [list|trust FINGERPRINT|forget FINGERPRINT]`.")
    fingerprint = normal(words[0])
    with_agent(service)
    if command == "forget":
        service.call("ForgetOrigin", "s", fingerprint)
        return 0
    name = arguments.value("name")
    service.call("TrustOrigin", "ss", fingerprint, json.dumps({"host": name} if name else {}))
    return 0
