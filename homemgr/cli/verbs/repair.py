"""`homemgr repair [USER...]`: mend what is wrong with home areas, as far as that is safe.

Exit codes: 0 all is in order now, 1 something is left to do, 2 it could not be found out.
"""

from __future__ import annotations

from homemgr.cli import findings_text
from homemgr.cli.arguments import Option
from homemgr.cli.home1 import Homemgr1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (Option("dry-run", "", "", "Change nothing, say what would be done"),)


def run(arguments: Arguments) -> int:
    """Repair the homes that are named, or the machine and all homes."""
    service = Homemgr1(arguments)
    with_agent(service)
    member = "CheckHomes" if arguments.has("dry-run") else "RepairHomes"
    found, is_complete = findings_text.ask(service, member, arguments.words)
    findings_text.show(found, arguments)
    return int(any(not one["done"] for one in found)) if is_complete else 2
