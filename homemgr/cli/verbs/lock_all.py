"""`homemgr lock-all`: lock every home that can be locked, as before the machine sleeps."""

from __future__ import annotations

import sys

from homemgr.cli.home1 import Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()

#: Where in a row of ListHomes the name and the state stand.
_NAME, _STATE = 0, 2
_READABLE = ("active", "lingering")


def run(arguments: Arguments) -> int:
    """Lock, then say which homes stay readable: that there are some is no failure."""
    home1 = Home1(arguments)
    with_agent(home1)
    home1.call("LockAllHomes")
    (rows,) = home1.call("ListHomes").body
    assert isinstance(rows, list)
    for row in rows:
        if row[_STATE] in _READABLE:
            print(f"Home {row[_NAME]} stays readable.", file=sys.stderr)
    return 0
