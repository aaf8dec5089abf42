"""What the service knows of transfers and of machines that homes came from, for people.

Items of ListTransfers: user, direction (in or out), host, machine_id, phase, when
(microseconds since 1970), bytes. Items of ListOrigins: fingerprint, host, machine_id,
when, by_uid (who accepted it).
"""

from __future__ import annotations

import json
from datetime import datetime

from homemgr.cli.bar import size
from homemgr.cli.output import is_terminal, print_table
from homemgr.errors import FileNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.home1 import Homemgr1

Item = dict[str, object]

_USEC_PER_S = 1_000_000


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
        if item.get("user") == user and item.get("host"):
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
