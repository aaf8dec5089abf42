"""`--activate-without-secret=`: this machine into the list of those that need no secret, or out.

The record names machines: what is true of the disk of this one need not be of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli import convert
from homemgr.record.fields import UNASKED_ON

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject


class WithoutSecret:
    """What the command line asks for; the last word counts."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self._word = ""
        self._is_given = False

    def __bool__(self) -> bool:
        """Whether anything is to be changed."""
        return self._is_given

    def take(self, text: str) -> None:
        """Note yes, no, or nothing for no machine at all; raises ValueError."""
        self._word = ("yes" if convert.boolean(text) else "no") if text else ""
        self._is_given = True

    def applied_to(self, record: JsonObject, machine_id: str) -> JsonObject:
        """A copy of ``record`` with the change made."""
        if not self._is_given:
            return record
        known = record.get(UNASKED_ON)
        others = [known] if isinstance(known, str) else known if isinstance(known, list) else []
        kept = [one for one in others if self._word and one != machine_id]
        if self._word == "yes":
            kept.append(machine_id)
        result = {name: value for name, value in record.items() if name != UNASKED_ON}
        return {**result, UNASKED_ON: kept} if kept else result
