"""`homemgr list`: all home areas of this machine. See ListHomes in org.freedesktop.home1(5).

The hot path of the command line: nothing may be imported here that a table does not need.
"""

from __future__ import annotations

from homemgr.cli.home1 import Home1
from homemgr.cli.output import is_terminal, json_format, print_json, print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.cli.arguments import Arguments

OPTIONS = ()

_COLUMNS = ("name", "uid", "gid", "state", "realname", "home", "shell")
_GREY, _GREEN, _YELLOW, _RED = "\x1b[38;5;245m", "\x1b[32m", "\x1b[33m", "\x1b[31m"
_COLOURS = {
    "absent": _GREY,
    "unfixated": _GREY,
    "active": _GREEN,
    "lingering": _YELLOW,
    "locked": _YELLOW,
    "dirty": _RED,
}


def run(arguments: Arguments) -> int:
    """Print the list, sorted by name."""
    form = json_format(arguments)
    (homes,) = Home1(arguments).call("ListHomes").body
    assert isinstance(homes, list)
    # In the order of the columns; the object path at the end is for programs.
    rows = sorted((h[0], h[1], h[3], h[2], h[4], h[5], h[6]) for h in homes)
    if form:
        print_json([dict(zip(_COLUMNS, row, strict=True)) for row in rows], form)
    else:
        _print_for_people(rows, legend=not arguments.has("no-legend"))
    return 0


def _print_for_people(rows: Sequence[Sequence[object]], *, legend: bool) -> None:
    texts = [[str(cell) or "-" for cell in row] for row in rows]
    if rows or not is_terminal():
        print_table([name.upper() for name in _COLUMNS], texts, legend=legend, colours=_COLOURS)
    # The closing line is for readers; a program counts lines itself.
    if legend and is_terminal():
        print(f"\n{len(rows)} home areas listed." if rows else "No home areas.")
