"""What is wrong with homes, in words: the answers of CheckHomes and RepairHomes for people."""

from __future__ import annotations

import json

from homemgr.cli.complain import complain_of, printable
from homemgr.cli.home1 import BusError
from homemgr.cli.output import json_format, print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.home1 import Homemgr1

Item = dict[str, object]


def ask(service: Homemgr1, member: str, users: Sequence[str]) -> tuple[list[Item], bool]:
    """The findings of some users; of nobody in particular: of the machine and everybody.

    And whether all could be asked for; what could not is told.
    """
    found: list[Item] = []
    is_complete = True
    for user in users or ("",):
        try:
            (text,) = service.call(member, "s", user).body
        except BusError as error:
            complain_of(f"Cannot check {user or 'this machine'}", error)
            is_complete = False
        else:
            found += json.loads(str(text))
    return found, is_complete


def show(found: Sequence[Item], arguments: Arguments) -> None:
    """Print them; nothing if nothing is wrong."""
    form = json_format(arguments)
    if form:
        print_json(list(found), form)
        return
    for one in found:
        whose = f"{one['user']}: " if one["user"] else ""
        print(printable(f"{whose}{one['code']}: {one['object']}"))
        for line in _lines(one):
            print(f"    {printable(line)}")


def _lines(one: Item) -> list[str]:
    what = f"{one['what']} {one['detail']}".rstrip()
    if one["done"]:
        return [what, f"Repaired: {one['done']}."]
    if one["failed"]:
        return [what, f"Could not be repaired: {one['failed']}", str(one["advice"])]
    if one["can_repair"]:
        return [what, f"`homemgr repair` {one['repair']}."]
    return [what, str(one["advice"])]
