"""What a home asks of the file system that is to hold it, and what a file system can do.

Everything is a number: a home needs names of so many bytes, a file system takes names of
at most so many. Where there is only yes and no the number is 1 or 0. In JSON needs are
``{WORD: {"most": NUMBER, "path": PATH}}``, with the path where the most is needed, and
limits ``{WORD: NUMBER}``, of those words alone of which a home could need more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from homemgr.errors import StreamError

#: off_t of the kernel: no number of a need or limit is larger.
_MOST = (1 << 63) - 1


#: As much of a path as helps to find what is meant.
_SHOWN_BYTES = 255


class Ability(StrEnum):
    """What file systems differ in; as words of JSON."""

    #: Bytes of the largest file.
    FILE_SIZE = "file-size"
    #: Bytes of the longest name.
    NAME_LENGTH = "name-length"
    #: Names with bytes that are no UTF-8, or that other systems do not allow.
    ODD_NAMES = "odd-names"
    #: Names in one directory that differ in case or in the form of accents alone.
    ALIKE_NAMES = "alike-names"
    #: Bytes of the longest text of a symbolic link.
    SYMLINK_LENGTH = "symlink-length"
    #: Names of one file.
    HARD_LINKS = "hard-links"
    FIFOS = "fifos"
    #: Files with parts that are not stored.
    HOLES = "holes"
    #: Bytes of the largest value of a user's extended attribute.
    XATTR_VALUE = "xattr-value"
    ACLS = "acls"
    #: Times of change that are no whole seconds, or beyond the year 2038.
    TIMES = "times"


#: What a home needs, in the words of a refusal; 1 and 0 are not said.
_TEXTS = {
    Ability.FILE_SIZE: "a file of {most} bytes ({path}; at most {limit})",
    Ability.NAME_LENGTH: "a name of {most} bytes ({path}; at most {limit})",
    Ability.ODD_NAMES: "names of any bytes ({path})",
    Ability.ALIKE_NAMES: "names that differ in case or accents alone ({path})",
    Ability.SYMLINK_LENGTH: "a symbolic link of {most} bytes ({path}; at most {limit})",
    Ability.HARD_LINKS: "a file with {most} names ({path}; at most {limit})",
    Ability.FIFOS: "fifos ({path})",
    Ability.HOLES: "files with holes ({path})",
    Ability.XATTR_VALUE: "an extended attribute of {most} bytes ({path}; at most {limit})",
    Ability.ACLS: "access control lists ({path})",
    Ability.TIMES: "times finer than seconds, or after 2038 ({path})",
}


class Need(NamedTuple):
    """How much of an ability a home needs, and where it needs the most."""

    most: int
    path: bytes


Needs = dict[Ability, Need]
Limits = dict[Ability, int]


def lacking(needs: Needs, limits: Limits) -> str:
    """What a file system with ``limits`` cannot hold of a home; empty if it can hold it."""
    return ", ".join(
        _TEXTS[ability].format(most=need.most, path=_shown(need.path), limit=limits[ability])
        for ability, need in needs.items()
        if ability in limits and need.most > limits[ability]
    )


def needs_to_json(needs: Needs) -> dict[str, object]:
    """As a JSON object, which fits in a frame: of a long path the beginning."""
    return {
        ability.value: {"most": need.most, "path": _text(need.path)}
        for ability, need in needs.items()
    }


def needs_from_json(value: object) -> Needs:
    """What `needs_to_json` wrote; `StreamError` if it did not.

    Words that are unknown here are of no use here: nothing was found out about them.
    """
    if not isinstance(value, dict):
        raise _malformed()
    found: Needs = {}
    for ability in Ability:
        told = value.get(ability.value)
        if told is None:
            continue
        if not isinstance(told, dict) or not isinstance(path := told.get("path"), str):
            raise _malformed()
        try:
            found[ability] = Need(
                _number(told.get("most")), path.encode("utf-8", "surrogateescape")
            )
        except UnicodeEncodeError as error:
            raise _malformed() from error
    return found


def limits_to_json(limits: Limits) -> dict[str, int]:
    """As a JSON object."""
    return {ability.value: limit for ability, limit in limits.items()}


def limits_from_json(value: object) -> Limits:
    """What `limits_to_json` wrote; `StreamError` if it did not."""
    if not isinstance(value, dict):
        raise _malformed()
    return {a: _number(value[a.value]) for a in Ability if a.value in value}


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise _malformed()
    return value


def _text(path: bytes) -> str:
    return path[:_SHOWN_BYTES].decode("utf-8", "surrogateescape")


def _shown(path: bytes) -> str:
    return ascii(_text(path))


def _malformed() -> StreamError:
    return StreamError("What a home needs, or a file system can do, is malformed.")
