"""Replies about homes, kept encoded: a change of one home costs its own row, not all.

Rows are structs, which D-Bus aligns to eight bytes, so that their encodings can
be put one after the other (D-Bus specification, Marshaling).
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from homemgr.bus import labels
from homemgr.wire.codec import Encoded, encode

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry

SIGNATURE = "a(susussso)"
#: The reply to GetHomeByName: a row without the name.
HOME_SIGNATURE = "usussso"

#: Rows encoded in one turn while warming up, and the pause that leaves callers their turns.
_WARM_PER_TURN = 10
_WARM_PAUSE_S = 0.001

#: A user may choose his real name, up to the megabyte of his record. Shown in lists and
#: signals is the beginning: all homes have to fit into one message of the bus.
_LONGEST_REAL_NAME = 256

#: Length of the array and the padding before its first row.
_HEAD_BYTES = 8


class Listing:
    """Encoded rows of all homes of a registry."""

    def __init__(self, registry: Registry) -> None:
        """Forget a row whenever the registry says its home changed."""
        self._registry = registry
        self._rows: dict[str, bytes] = {}
        self._body: Encoded | None = None
        for listeners in (registry.appeared, registry.changed, registry.vanished):
            listeners.append(self._forget)

    def body(self) -> Encoded:
        """The whole reply."""
        if self._body is None:
            rows = [self._rows.get(home.name) or self._encode(home) for home in self._registry]
            self._body = Encoded(SIGNATURE, join(rows))
        return self._body

    def home(self, home: Home) -> Encoded:
        """The reply about one home: its row behind the name.

        That is a body by itself: all types in it are aligned to four bytes at most.
        """
        row = self._rows.get(home.name) or self._encode(home)
        return Encoded(HOME_SIGNATURE, without_name(row))

    async def warm(self) -> None:
        """Encode every row once, in small turns of the event loop."""
        # Of a copy, and asked again: homes come and go in the pauses.
        for count, home in enumerate(list(self._registry)):
            if home.is_known and home.name not in self._rows:
                self._encode(home)
            if count % _WARM_PER_TURN == 0:
                await asyncio.sleep(_WARM_PAUSE_S)

    def _forget(self, home: Home) -> None:
        self._rows.pop(home.name, None)
        self._body = None

    def _encode(self, home: Home) -> bytes:
        row = bytes(encode(SIGNATURE, [[_row(home)]])[_HEAD_BYTES:])
        self._rows[home.name] = row
        return row


def join(rows: list[bytes]) -> bytes:
    """The array of these encoded structs; the last one is not padded."""
    joined = b"".join(row + bytes(-len(row) % 8) for row in rows[:-1]) + b"".join(rows[-1:])
    # The length does not count the padding that follows it (little endian, as encode()).
    return struct.pack("<I4x", len(joined)) + joined


def without_name(row: bytes) -> bytes:
    """What stands behind the name in an encoded row."""
    # A string is its length in four bytes, the text and a NUL; then a number on a multiple of four.
    return row[int.from_bytes(row[:4], "little") + 8 & -4 :]


def unix(home: Home) -> tuple[int, str, str, str]:
    """Gid, real name, home directory and shell: the real ones, whatever the state."""
    effective = home.effective
    real_name = shortened(effective.real_name or home.name)
    return effective.gid or home.uid, real_name, effective.home_directory, effective.shell


def shortened(text: str) -> str:
    """``text``, if need be without what is too long for a list."""
    if len(text) <= _LONGEST_REAL_NAME:
        return text
    return text[: _LONGEST_REAL_NAME - 1] + "…"


def _row(home: Home) -> tuple[object, ...]:
    gid, real_name, home_directory, shell = unix(home)
    path = labels.path_of(home.name)
    return home.name, home.uid, home.state, gid, real_name, home_directory, shell, path
