"""`homemgr list-signing-keys`: the public keys whose signatures on records count here.

The fingerprint is the SHA-256 of the key in DER form, 64 hexadecimal digits: what a
machine shows of another one's key before it is trusted.
"""

from __future__ import annotations

from homemgr.cli.home1 import Home1
from homemgr.cli.output import is_terminal, json_format, print_json, print_table
from homemgr.cli.pem import fingerprint, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Print the list, sorted by name."""
    form = json_format(arguments)
    (found,) = Home1(arguments).call("ListSigningKeys").body
    assert isinstance(found, list)
    keys = sorted((str(name), str(pem)) for name, pem, _flags in found)
    if form:
        print_json([{"name": n, "key": k, "fingerprint": fingerprint(k)} for n, k in keys], form)
        return 0
    legend = not arguments.has("no-legend")
    rows = [[name, fingerprint(pem), one_line(pem)] for name, pem in keys]
    if rows or not is_terminal():
        print_table(["NAME", "FINGERPRINT", "KEY"], rows, legend=legend)
    if legend and is_terminal():
        print(f"\n{len(rows)} signing keys listed." if rows else "No signing keys.")
    return 0
