"""`--member-of=+GROUP,-GROUP`: into some groups and out of others, whatever else is named.

Names without signs, as homectl has them, are the whole list. The groups of all sections of a
record count together: into a group is into the list for all machines, out is out of every list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.record.names import is_acceptable

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

_FIELD = "memberOf"


class GroupChanges:
    """Groups to be in, and to be in no more; the last word about each counts."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self._is_member: dict[str, bool] = {}
        self._is_list = False

    def __bool__(self) -> bool:
        """Whether any group was named."""
        return bool(self._is_member)

    def take(self, words: list[str], *, is_for_all: bool) -> bool:
        """Note groups with signs; False if these are a list. ValueError if they are neither.

        ``is_for_all``: not for some machines only, where others would say otherwise.
        """
        has_signs = any(word[0] in "+-" for word in words)
        self._is_list |= not has_signs
        for word in words if has_signs else ():
            if word[0] not in "+-" or not is_acceptable(word[1:]):
                raise ValueError("names with + or - before each of them, or before none")
            self._is_member[word[1:]] = word[0] == "+"
        if self and self._is_list:
            raise ValueError("either the list of groups, or changes of it with + and -")
        if has_signs and not is_for_all:
            raise ValueError("names without + and -, as --match= is for some machines only")
        return has_signs

    def applied_to(self, record: JsonObject) -> JsonObject:
        """A copy of ``record`` with the changes made."""
        if not self:
            return record
        added = {name for name, is_member in self._is_member.items() if is_member}
        groups = sorted(added.union(self._kept(record.get(_FIELD))))
        result = _with_groups(record, groups)
        entries = record.get("perMachine")
        if isinstance(entries, list):
            result["perMachine"] = [left for entry in entries if (left := self._entry(entry))]
        return result

    def _entry(self, entry: Json) -> Json:
        """What is left of a perMachine entry; nothing if it says nothing any more."""
        if not isinstance(entry, dict) or _FIELD not in entry:
            return entry
        left = _with_groups(entry, self._kept(entry[_FIELD]))
        return left if any(not name.startswith("match") for name in left) else None

    def _kept(self, groups: Json) -> list[str]:
        listed = groups if isinstance(groups, list) else []
        return [str(name) for name in listed if self._is_member.get(str(name), True)]


def _with_groups(members: JsonObject, groups: list[str]) -> JsonObject:
    """A copy with another list; without one if it is empty."""
    others: JsonObject = {name: value for name, value in members.items() if name != _FIELD}
    return {**others, _FIELD: [*groups]} if groups else others
