"""`homemgr register FILE...`: make users of this machine of records, without files of their own.

For homes whose files are elsewhere, or come later. See RegisterHome in
org.freedesktop.home1(5).
"""

from __future__ import annotations

from homemgr.cli import record_source as source
from homemgr.cli.arguments import Option
from homemgr.cli.complain import complain, complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent
from homemgr.cli.options import is_on
from homemgr.errors import InvalidRecord
from homemgr.record import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option("seize", "", "BOOL", "Drop the signature of a record, to sign it here (default: no)"),
)


def run(arguments: Arguments) -> int:
    """Register each record; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    # What another machine signed stays its own, unless it is to be signed anew. As homectl(1)
    # has it: of created homes the signature is dropped by default, of registered ones it is not.
    seize = is_on(arguments, "seize", by_default=False)
    failed = False
    for path in arguments.words or ["-"]:
        try:
            record = source.read_identity(path, "")
            if seize:
                record.pop("signature", None)
            home1.call("RegisterHome", "s", jsontext.pretty(record))
        except InvalidRecord as error:
            complain(error.message)
            failed = True
        except BusError as error:
            complain_of(f"Cannot register {path}", error)
            failed = True
    return int(failed)
