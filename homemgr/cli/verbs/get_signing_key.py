"""`homemgr get-signing-key [NAME...]`: print public keys, to have them trusted elsewhere."""

from __future__ import annotations

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1
from homemgr.cli.trust import OWN_KEY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Print each key in PEM form; without a name this machine's own."""
    home1 = Home1(arguments)
    failed = False
    for name in arguments.words or [OWN_KEY]:
        try:
            pem = str(home1.call("GetSigningKey", "s", name).body[0])
        except BusError as error:
            complain_of(f"Cannot show signing key {name}", error)
            failed = True
        else:
            print(pem, end="" if pem.endswith("\n") else "\n")
    return int(failed)
