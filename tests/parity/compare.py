"""What differs between two runs of the scenario, once all that must differ is out of the way."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: For people only.
_UNCOMPARED = {"said"}
#: Members of records whose values are new each time; that they are there is compared.
_VOLATILE = {
    *("lastChangeUSec", "lastPasswordChangeUSec", "lastGoodAuthenticationUSec"),
    *("lastBadAuthenticationUSec", "rateLimitBeginUSec", "notBeforeUSec"),
    *("diskSize", "diskUsage", "diskFree", "diskCeiling", "diskFloor"),
    *("data", "key"),
}
#: A moment that the scenario chose itself is compared.
_CHOSEN_BELOW = 10**9
_TEXTS = (
    (re.compile(r"\$(\w+)\$[./A-Za-z0-9$]+"), r"$\1$HASH"),
    (re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\n", re.DOTALL), "KEY"),
    (re.compile(r"\b[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"), "TIME"),
    (re.compile(r"\bMCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}="), "KEY"),
)


#: Both boxes have the same one.
_ID = re.compile("[0-9a-f]{32}")


class Difference(NamedTuple):
    """One value of one step, as systemd-homed and as we have it; None where there is none."""

    step: str
    member: str
    homed: object
    ours: object


def differences(homed: dict[str, object], ours: dict[str, object]) -> list[Difference]:
    """Every difference, in the order of the steps."""
    found = []
    for step in homed | ours:
        left, right = _leaves(homed.get(step)), _leaves(ours.get(step))
        found += [
            Difference(step, member, left.get(member), right.get(member))
            for member in left | right
            # By their text: to Python, true is 1.
            if repr(left.get(member)) != repr(right.get(member))
        ]
    return found


def _leaves(value: object, name: str = "") -> dict[str, object]:
    """Every single value by the path that leads to it."""
    found: dict[str, object] = {}
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if key not in _UNCOMPARED:
                key = "MACHINE" if _ID.fullmatch(str(key)) else str(key)
                found |= _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for key, item in _keyed(value):
            found |= _leaves(item, f"{name}[{key}]")
    else:
        found[name] = _plain(name, value)
    return found


def _keyed(items: list[object]) -> Sequence[tuple[object, object]]:
    """The items under names that do not depend on their order, where they are rows of a list."""
    if all(isinstance(item, str) for item in items) and len(items) > 1:
        # Lines of a text, or names: what is there counts, and how often.
        lines = Counter(str(_plain("", item)) for item in items)
        return sorted(lines.items())
    names = [_name_of(item) for item in items]
    if None in names or len(set(names)) < len(names):
        return list(enumerate(items))
    return list(zip(names, items, strict=True))


def _name_of(item: object) -> str | None:
    if isinstance(item, list) and item and isinstance(item[0], str):
        return item[0]
    if isinstance(item, dict):
        inside = item.get("parameters", item)
        inside = inside.get("record", inside) if isinstance(inside, dict) else {}
        if not isinstance(inside, dict):
            return None
        parts = [str(inside[key]) for key in ("userName", "groupName", "name") if key in inside]
        return " ".join(parts) or None
    return None


def _plain(name: str, value: object) -> object:
    last = re.sub(r"\[[^]]*\]$", "", name).rpartition(".")[2]
    if last in _VOLATILE and not (isinstance(value, int) and value < _CHOSEN_BELOW):
        return f"<{last}>"
    if isinstance(value, str):
        for pattern, instead in _TEXTS:
            value = pattern.sub(instead, value)
    return value
