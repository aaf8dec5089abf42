"""What the service knows of transfers and of machines that homes came from, for people.

Items of ListTransfers: user, direction (in or out), host, machine_id, phase, when
(microseconds since 1970), bytes. Items of ListOrigins: fingerprint, host, machine_id,
when, by_uid (who accepted it). Items of ListAccountConversions: user, phase, when, home, image,
until (when it can no longer be undone). Items of ListConversions: user, phase, when, is_used,
old and new (storage and image_path each).
"""

from __future__ import annotations

import json
from datetime import datetime

from homemgr.cli.bar import size
from homemgr.cli.output import is_terminal, json_format, print_json, print_table
from homemgr.errors import FileNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from homemgr.cli.arguments import Arguments
    from homemgr.cli.home1 import Homemgr1

    class Table(Protocol):
        """Prints items as a table."""

        def __call__(self, found: list[Item], *, legend: bool) -> None:
            """Print ``found``, with a header and a footer if asked."""


Item = dict[str, object]

_USEC_PER_S = 1_000_000


def listed(service: Homemgr1, arguments: Arguments, member: str, table: Table) -> int:
    """Show the list that ``member`` gives as the options say; the exit code."""
    found = items(service, member)
    form = json_format(arguments)
    if form:
        print_json(found, form)
    else:
        table(found, legend=not arguments.has("no-legend"))
    return 0


def items(service: Homemgr1, member: str) -> list[Item]:
    """The list that ``member`` gives."""
    (text,) = service.call(member).body
    found: list[Item] = json.loads(str(text))
    return found


def known_host(service: Homemgr1, user: str) -> tuple[str, bool]:
    """The other machine of the transfer of ``user``, and whether the home came from there.

    Raises FileNotFound if none is known.
    """
    for item in items(service, "ListTransfers"):
        # What came here once and went on since is nothing that could be undone.
        is_over = item.get("phase") == "passed"
        if item.get("user") == user and item.get("host") and not is_over:
            return str(item["host"]), item.get("direction") == "in"
    raise FileNotFound(f"No transfer of {user} is known here: name the other machine.")


def transfers(found: list[Item], *, legend: bool) -> None:
    """Print transfers as a table."""
    rows = [
        [
            str(item.get("user", "")),
            "from" if item.get("direction") == "in" else "to",
            str(item.get("host") or item.get("machine_id") or "-"),
            str(item.get("phase", "")),
            _size(item.get("bytes")),
            _time(item.get("when")),
        ]
        for item in found
    ]
    _print(("USER", "WAY", "HOST", "PHASE", "SIZE", "SINCE"), rows, "transfers", legend=legend)


def origins(found: list[Item], *, legend: bool) -> None:
    """Print machines that are trusted as a table."""
    rows = [
        [
            str(item.get("fingerprint", "")),
            str(item.get("host") or "-"),
            str(item.get("machine_id") or "-"),
            str(item.get("by_uid", "-")),
            _time(item.get("when")),
        ]
        for item in found
    ]
    columns = ("FINGERPRINT", "HOST", "MACHINE", "BY", "SINCE")
    _print(columns, rows, "trusted machines", legend=legend)


def conversions(found: list[Item], *, legend: bool) -> None:
    """Print conversions of homes to another storage or place as a table."""
    rows = []
    for item in found:
        sides = [item.get(name) for name in ("old", "new")]
        old, new = (side if isinstance(side, dict) else {} for side in sides)
        rows.append(
            [str(item.get("user")), str(item.get("phase"))]
            + [str(side.get("storage")) for side in (old, new)]
            + [str(new.get("image_path")), "yes" if item.get("is_used") else "no"]
        )
    columns = ("USER", "PHASE", "WAS", "IS", "IMAGE", "USED")
    print_table(columns, rows, legend=legend)


def accounts(found: list[Item], *, legend: bool) -> None:
    """Print conversions of classic accounts as a table."""
    rows = [
        [str(item.get(name, "")) for name in ("user", "phase", "home", "image")]
        + [_time(item.get("until"))]
        for item in found
    ]
    columns = ("USER", "PHASE", "WAS", "IS", "UNDO UNTIL")
    _print(columns, rows, "conversions of accounts", legend=legend)


def _print(columns: tuple[str, ...], rows: list[list[str]], what: str, *, legend: bool) -> None:
    if rows or not is_terminal():
        print_table(columns, rows, legend=legend)
    if legend and is_terminal():
        print(f"\n{len(rows)} {what} listed." if rows else f"No {what}.")


def _size(value: object) -> str:
    return size(value) if isinstance(value, int) else "-"


def _time(value: object) -> str:
    if not isinstance(value, int | float) or value <= 0:
        return "-"
    when = datetime.fromtimestamp(value / _USEC_PER_S).astimezone()
    return f"{when:%Y-%m-%d %H:%M}"
