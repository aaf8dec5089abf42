"""`homemgr check [USER...]`: what is wrong with home areas.

Exit codes: 0 nothing is wrong, 1 something is, 2 it could not be found out.
"""

from __future__ import annotations

from homemgr.cli import findings_text
from homemgr.cli.home1 import Homemgr1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Check the homes that are named, or the machine and all homes."""
    service = Homemgr1(arguments)
    with_agent(service)
    found, is_complete = findings_text.ask(service, "CheckHomes", arguments.words)
    findings_text.show(found, arguments)
    return int(bool(found)) if is_complete else 2
