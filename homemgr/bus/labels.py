"""Object path labels of home areas.

ASCII letters stay, digits stay except in first position, every other byte is
``_`` and two hex digits (bus_label_escape of systemd, sd_bus_path_encode(3)).
"""

from __future__ import annotations

import re
import string

ROOT = "/org/freedesktop/home1"
HOMES = ROOT + "/home"

_LETTERS = frozenset(string.ascii_letters.encode())
_DIGITS = frozenset(string.digits.encode())
_ESCAPED = re.compile(r"_([0-9a-f]{2})")


def encode(name: str) -> str:
    """The label that stands for ``name``."""
    if not name:
        return "_"
    data = name.encode()
    return "".join(
        chr(byte) if byte in _LETTERS or (byte in _DIGITS and i) else f"_{byte:02x}"
        for i, byte in enumerate(data)
    )


def decode(label: str) -> str:
    """The name that ``label`` stands for; a label nobody encodes gives a name nobody has."""
    if label == "_":
        return ""
    text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), label)
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def path_of(name: str) -> str:
    """Object path of the home of user ``name``."""
    return f"{HOMES}/{encode(name)}"


def path_of_uid(uid: int) -> str:
    """The other object path of a home: by-uid calls answer with it."""
    return f"{HOMES}/{uid}"
