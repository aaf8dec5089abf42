"""`homemgr remove-signing-key NAME...`: no longer accept records that are signed with these."""

from __future__ import annotations

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()
_NO_FLAGS = 0


def run(arguments: Arguments) -> int:
    """Remove each key; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for name in arguments.words:
        try:
            home1.call("RemoveSigningKey", "st", name, _NO_FLAGS)
        except BusError as error:
            complain_of(f"Cannot remove signing key {name}", error)
            failed = True
    return int(failed)
