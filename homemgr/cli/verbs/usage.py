"""`homemgr usage [USER...]`: what home areas take of their disks.

Logical is what the files hold, physical what is allocated for the home, reclaimable what of that
or beside it nobody would miss. See GetHomeUsage of org.homemgr1.
"""

from __future__ import annotations

import json
import os

from homemgr.cli.arguments import Option
from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, Homemgr1, own_name
from homemgr.cli.output import json_format, print_json, print_table, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.cli.arguments import Arguments

OPTIONS = (Option("count", "", "", "Look at every file, also where quota knows the physical size"),)

_FILES = 1
_BYTES = ("logical", "physical", "reclaimable")
_COLUMNS = ("user", "storage", *_BYTES, "counted_by")


def run(arguments: Arguments) -> int:
    """Print a line for each home; 1 if one could not be asked about."""
    form = json_format(arguments)
    found, is_complete = _ask(arguments)
    if form:
        print_json(found, form)
    else:
        rows = [[_cell(one[name], name) for name in _COLUMNS] for one in found]
        heading = [name.upper().replace("_", " ") for name in _COLUMNS]
        print_table(heading, rows, legend=not arguments.has("no-legend"))
    return 0 if is_complete else 1


def _ask(arguments: Arguments) -> tuple[list[dict[str, object]], bool]:
    service = Homemgr1(arguments)
    flags = _FILES if arguments.has("count") else 0
    found, is_complete = [], True
    for user in arguments.words or _everybody(arguments):
        try:
            (text,) = service.call("GetHomeUsage", "st", user, flags).body
        except BusError as error:
            complain_of(f"Cannot tell what home {user} takes", error)
            is_complete = False
        else:
            found.append(json.loads(str(text)))
    return found, is_complete


def _everybody(arguments: Arguments) -> Sequence[str]:
    """All homes, by name, that the caller may ask about."""
    if os.geteuid() != 0:
        return [own_name()]
    (homes,) = Home1(arguments).call("ListHomes").body
    assert isinstance(homes, list)
    return sorted(str(home[0]) for home in homes)


def _cell(value: object, name: str) -> str:
    if value is None:
        return "-"
    return size_text(int(str(value))) if name in _BYTES else str(value)
