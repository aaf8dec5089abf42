"""POSIX access control lists: as extended attribute and as text, ids as numbers.

The attribute is that of the kernel, include/uapi/linux/posix_acl_xattr.h: version 2 u32,
then for each entry tag u16, permissions u16, id u32, all little endian. The text is that
of acl(5), each entry on a line, as archives have it.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from homemgr.errors import StreamError

#: Names of the attributes.
ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

#: Tags; in this order in a list.
USER_OBJ = 0x01
USER = 0x02
GROUP_OBJ = 0x04
GROUP = 0x08
MASK = 0x10
OTHER = 0x20

#: The id of an entry whose tag has none.
NO_ID = 0xFFFFFFFF

_VERSION = 2
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")

_WORDS = {USER_OBJ: "user", USER: "user", GROUP_OBJ: "group", GROUP: "group"}
_WORDS |= {MASK: "mask", OTHER: "other"}
_LINE = re.compile(r"(user|group|mask|other):(\d{0,10}):([r-])([w-])([x-])", re.ASCII)

#: Tags of words without and with an id.
_TAGS = {"user": (USER_OBJ, USER), "group": (GROUP_OBJ, GROUP)}
_TAGS |= {"mask": (MASK, 0), "other": (OTHER, 0)}


class AclEntry(NamedTuple):
    """One line of a list; in this form lists sort as they should."""

    tag: int
    id: int
    permissions: int


def parse(value: bytes) -> list[AclEntry]:
    """The entries of an attribute, in order of tags and ids; `StreamError` if it is none."""
    if len(value) % _ENTRY.size != _HEAD.size or _HEAD.unpack_from(value) != (_VERSION,):
        raise _malformed()
    entries = [
        AclEntry(tag, number, permissions)
        for tag, permissions, number in _ENTRY.iter_unpack(value[_HEAD.size :])
    ]
    return _checked(entries)


def build(entries: list[AclEntry]) -> bytes:
    """The attribute with ``entries``."""
    lines = (_ENTRY.pack(tag, permissions, number) for tag, number, permissions in entries)
    return _HEAD.pack(_VERSION) + b"".join(lines)


def is_minimal(entries: list[AclEntry]) -> bool:
    """Whether the list says no more than the mode does."""
    return len(entries) == 3


def to_text(entries: list[AclEntry]) -> str:
    """The entries as text."""
    return "".join(
        f"{_WORDS[tag]}:{'' if number == NO_ID else number}:{_letters(permissions)}\n"
        for tag, number, permissions in entries
    )


def from_text(text: str) -> list[AclEntry]:
    """The entries of a text, as `parse` has them; `StreamError` if it is none.

    Lines may end in a comma and, as GNU tar writes it, in the id again as a number:
    ``user:alice:rw-:1000``. Names alone are refused: they mean somebody else elsewhere.
    """
    lines = [line for line in re.split(r"[\n,]", text) if line]
    return _checked([_entry(line) for line in lines])


def _entry(line: str) -> AclEntry:
    fields = line.split(":")
    if len(fields) == 4:
        line = f"{fields[0]}:{fields[3]}:{fields[2]}"
    found = _LINE.fullmatch(line)
    if found is None:
        raise _malformed()
    word, number, *letters = found.groups()
    tag = _TAGS[word][bool(number)]
    permissions = sum(bit for bit, letter in zip((4, 2, 1), letters, strict=True) if letter != "-")
    return AclEntry(tag, int(number) if number else NO_ID, permissions)


def _letters(permissions: int) -> str:
    return "".join(
        letter if permissions & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x"))
    )


def _checked(entries: list[AclEntry]) -> list[AclEntry]:
    """The entries sorted, if they are a list: see posix_acl_valid() of the kernel."""
    entries = sorted(entries)
    tags = [entry.tag for entry in entries]
    named = [entry for entry in entries if entry.tag in (USER, GROUP)]
    if (
        not set(tags) <= _WORDS.keys()
        or any(entry.permissions > 7 or entry.id > NO_ID for entry in entries)
        or any(tags.count(tag) != 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER))
        or not bool(named) <= tags.count(MASK) <= 1
        or any((entry.id != NO_ID) != (entry in named) for entry in entries)
        or len({(entry.tag, entry.id) for entry in entries}) != len(entries)
    ):
        raise _malformed()
    return entries


def _malformed() -> StreamError:
    return StreamError("An access control list is malformed.")
