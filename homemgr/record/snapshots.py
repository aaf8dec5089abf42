"""What is noted about a snapshot of a home: its name, when, why and by whom it was taken.

Also the record of that time, and which of those that were taken by themselves are kept.
Pure. In JSON a note is one object; its members are those of `Note`, and ``version``.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import InvalidArgs, InvalidRecord
from homemgr.record import jsontext
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.record.jsontext import Json, JsonObject

#: How a snapshot came to be: of btrfs itself; a tree of files that share blocks with those
#: of the home; a tree of full copies; one file that shares blocks with the image.
SUBVOLUME, SHARED, COPIED, IMAGE = "subvolume", "shared", "copied", "image"
HOWS: Final = (SUBVOLUME, SHARED, COPIED, IMAGE)

#: Those that are taken before something risky are kept that long (s), and so many of them.
KEPT_S: Final = 14 * 86400
KEPT: Final = 5
#: All of one home together, those taken on purpose included.
MOST: Final = 64

_VERSION: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOST_REASON: Final = 255
_MOST_NUMBER: Final = (1 << 53) - 1


class Note(NamedTuple):
    """All that is known about one snapshot but its files."""

    name: str
    #: Microseconds since 1970.
    taken_usec: int
    by_uid: int
    reason: str
    #: Whether nobody asked for it: then it goes by itself, too.
    is_automatic: bool
    #: One of `HOWS`.
    how: str
    #: The record that counted then; its passwords never count again.
    record: UserRecord

    def to_json(self) -> JsonObject:
        """What is stored."""
        return {**self.shown(), "version": _VERSION, "record": self.record.data}

    def shown(self) -> JsonObject:
        """What people are shown: no record, which holds hashes of passwords."""
        return {
            "name": self.name,
            "taken_usec": self.taken_usec,
            "by_uid": self.by_uid,
            "reason": self.reason,
            "automatic": self.is_automatic,
            "how": self.how,
        }


def parse(text: bytes) -> Note:
    """A note as it was stored; raises InvalidRecord."""
    data = jsontext.parse(text)
    if data.get("version") != _VERSION:
        raise InvalidRecord(f".version: expected {_VERSION}, found {data.get('version')!r}.")
    record = data.get("record")
    if not isinstance(record, dict):
        raise InvalidRecord(".record: expected a user record.")
    name, reason, how = (_text(data, member) for member in ("name", "reason", "how"))
    if not _NAME.fullmatch(name):
        raise InvalidRecord(f".name: {name!r} cannot be the name of a snapshot.")
    if how not in HOWS:
        raise InvalidRecord(f".how: expected one of {', '.join(HOWS)}, found {how!r}.")
    is_automatic = data.get("automatic")
    if not isinstance(is_automatic, bool):
        raise InvalidRecord(".automatic: expected true or false.")
    return Note(
        name,
        _number(data, "taken_usec"),
        _number(data, "by_uid"),
        reason,
        is_automatic,
        how,
        UserRecord(record),
    )


def check_name(name: str) -> str:
    """``name``, if a snapshot may be called so; raises InvalidArgs."""
    if not _NAME.fullmatch(name):
        raise InvalidArgs(
            f"{name[:100]!r} cannot be the name of a snapshot: expected up to 100 letters, digits,"
            " dots, hyphens and underscores, the first one a letter or digit."
        )
    return name


def check_reason(text: str) -> str:
    """``text``, if it is one short line; raises InvalidArgs."""
    if len(text) > _MOST_REASON or not text.isprintable():
        raise InvalidArgs(f"reason: expected one line of at most {_MOST_REASON} characters.")
    return text


def name_for(taken_usec: int, taken: Iterable[str], prefix: str = "") -> str:
    """A name that says when, in UTC, and is none of ``taken``."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(taken_usec // 1_000_000))
    plain = f"{prefix}{moment}"
    there, name, number = set(taken), plain, 2
    while name in there:
        name, number = f"{plain}-{number}", number + 1
    return name


def surplus(notes: Iterable[Note], now_usec: int, kept: int = KEPT) -> list[str]:
    """The names of automatic snapshots whose time is over, and of the oldest beyond ``kept``."""
    automatic = [note for note in notes if note.is_automatic]
    automatic.sort(key=lambda note: (note.taken_usec, note.name), reverse=True)
    least = now_usec - KEPT_S * 1_000_000
    return [
        note.name
        for number, note in enumerate(automatic)
        if number >= kept or note.taken_usec < least
    ]


def _text(data: JsonObject, member: str) -> str:
    value: Json = data.get(member)
    if not isinstance(value, str):
        raise InvalidRecord(f".{member}: expected a text.")
    return value


def _number(data: JsonObject, member: str) -> int:
    value: Json = data.get(member)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_NUMBER:
        raise InvalidRecord(f".{member}: expected a number from 0 to {_MOST_NUMBER}.")
    return value
