"""`homemgr inspect [USER...]`: show homes and their user records, for people or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, own_name
from homemgr.cli.output import json_for_reader, json_format
from homemgr.cli.record_source import machine_id
from homemgr.cli.show import describe
from homemgr.record import jsontext

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option("export-format", "", "full|stripped|minimal", "How much of the record JSON shows"),
    Option("", "E", "", "Same as -j --export-format=stripped, twice: minimal"),
)

#: The first number that is no uid, see uid_t in credentials(7).
_NO_UID = 0xFFFFFFFF

#: What each export format leaves out: what belongs to this machine, then the signature.
_LEFT_OUT = {
    "full": (),
    "stripped": ("binding", "status"),
    "minimal": ("binding", "status", "signature"),
}
_BY_LETTERS = ("full", "stripped", "minimal")


def run(arguments: Arguments) -> int:
    """Show each home; one that fails does not stop the others."""
    form, left_out = json_format(arguments), _left_out(arguments)
    home1 = Home1(arguments)
    failed = False
    for index, user in enumerate(arguments.words or [own_name()]):
        # No user name consists of digits alone.
        by_uid = user.isascii() and user.isdecimal() and int(user) < _NO_UID
        member = "GetUserRecordByUID" if by_uid else "GetUserRecordByName"
        try:
            text, _, _ = home1.call(
                member, "u" if by_uid else "s", int(user) if by_uid else user
            ).body
        except BusError as error:
            complain_of(f"Cannot inspect home {user}", error)
            failed = True
            continue
        record = jsontext.parse(str(text))
        if not form:
            print("\n" * (index > 0) + describe(record, machine_id(arguments)), end="")
            continue
        shown = {k: v for k, v in record.items() if k not in left_out}
        json = jsontext.pretty(shown) if form == "pretty" else jsontext.compact(shown) + "\n"
        print(json_for_reader(json), end="")
    return int(failed)


def _left_out(arguments: Arguments) -> tuple[str, ...]:
    letters = arguments.count("E")
    if letters >= len(_BY_LETTERS):
        raise UsageError("-E more than twice means nothing.")
    name = arguments.value("export-format", _BY_LETTERS[letters])
    if name not in _LEFT_OUT:
        raise UsageError(f"--export-format={name}: expected full, stripped or minimal.")
    return _LEFT_OUT[name]
