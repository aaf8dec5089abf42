"""A classic account as a user record: what each field of passwd(5) and shadow(5) becomes.

Pure. What a record has no place for is told as notes, in the shape of those of a transfer:
kind and detail. The way back is for the password and the lock: all else comes from the old
lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import InvalidArgs, NotSupported, UIDInUse
from homemgr.record import uids

if TYPE_CHECKING:
    from homemgr.record.account_lines import Excerpt, Texts
    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord

_DAY_USEC: Final = 86400 * 1_000_000
#: What shadow-utils write for "never": 99999 days.
_NEVER_DAYS: Final = 99999
#: Of crypt(5): "$id$...", the two of BSDi and DES.
_HASH = re.compile(r"\$[^:*!\s]+|_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{13}")


class Identity(NamedTuple):
    """Who the account is: from its line in passwd."""

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str
    #: The group that has the primary gid.
    group: str
    #: That group is the user's alone, and goes with the account.
    has_own_group: bool

    @property
    def own_group(self) -> str | None:
        """The group that goes with the account; None if there is none."""
        return self.group if self.has_own_group else None


class Converted(NamedTuple):
    """What became of an account."""

    record: JsonObject
    notes: list[tuple[str, str]]


def identify(texts: Texts, name: str) -> Identity:
    """The account ``name``; raises InvalidArgs, UIDNotAllowed, UIDInUse, NotSupported.

    The group of a home area has the uid of its user as id, so that must be free.
    """
    rows = [line.split(":") for line in texts["passwd"].split("\n")]
    _, _, uid_text, gid_text, gecos, home, shell = _line_of(rows, name)
    uid, gid = _id(uid_text, name), _id(gid_text, name)
    uids.check_allowed(uid)
    others = [row for row in rows if len(row) == 7 and row[0] != name]
    if same := [row[0] for row in others if row[2] == uid_text]:
        raise UIDInUse(f"Account {same[0]} has the uid {uid} of {name} as well.")
    groups = [row for line in texts["group"].split("\n") if len(row := line.split(":")) == 4]
    group = next((row[0] for row in groups if row[2] == gid_text), "")
    is_shared = any(row[3] == gid_text for row in others)
    is_own = group == name and not is_shared and _members(groups, name) <= {"", name}
    _require_free(groups, name, uid_text, is_own=is_own)
    return Identity(name, uid, gid, gecos, home, shell, group, is_own)


def _line_of(rows: list[list[str]], name: str) -> list[str]:
    """The one line of an account."""
    mine = [row for row in rows if row[0] == name]
    if not mine:
        raise InvalidArgs(
            f"There is no account {name} in /etc/passwd; those of directory servers stay there."
        )
    if len(mine) != 1 or len(mine[0]) != 7:
        raise InvalidArgs(f"The line of {name} in /etc/passwd is malformed, or there are several.")
    return mine[0]


def _members(groups: list[list[str]], name: str) -> set[str]:
    return {member for row in groups if row[0] == name for member in row[3].split(",")}


def _require_free(groups: list[list[str]], name: str, uid: str, *, is_own: bool) -> None:
    """Raise NotSupported if another group has the id or the name of the home area's own one.

    ``is_own``: the group of that name is the account's alone, and goes with it.
    """
    taken = [row[0] for row in groups if row[2] == uid and not (row[0] == name and is_own)]
    if taken:
        raise NotSupported(
            f"Group {taken[0]} has the id {uid}, which the group of the home area of {name} needs:"
            " that is always the user's uid. Give the group another id first (groupmod -g)."
        )
    if not is_own and any(row[0] == name for row in groups):
        raise NotSupported(
            f"Group {name} has other members than {name}, or is not the primary one: the home"
            " area's own group would have its name. Rename it first (groupmod -n)."
        )


def convert(who: Identity, found: Excerpt, home_root: str) -> Converted:
    """The record of an account, unsigned; raises NotSupported if it has no password."""
    notes: list[tuple[str, str]] = []
    shadow = found.fields("shadow")
    shadow += [""] * (9 - len(shadow))
    record: JsonObject = {
        "userName": who.name,
        "disposition": "regular",
        "uid": who.uid,
        **_person(who, notes),
        **_ageing(shadow),
    }
    word = found.fields("passwd")[1]
    hashed = shadow[1] if word == "x" else word
    if hashed.startswith("!"):
        record["locked"] = True
        hashed = hashed.lstrip("!")
    if not _HASH.fullmatch(hashed):
        raise NotSupported(
            f"Account {who.name} has no password, and a home area opens with one: set it first"
            f" (passwd {who.name}), then convert."
        )
    record["privileged"] = {"hashedPassword": [hashed]}
    if who.home != f"{home_root}/{who.name}":
        record["homeDirectory"] = who.home
    groups = {*found.groups, *([] if who.has_own_group else [who.group])} - {""}
    if groups:
        record["memberOf"] = [*sorted(groups)]
    notes += [("group-administrator-dropped", group) for group in found.administers]
    if who.gid != who.uid:
        what = f"primary group {who.group or who.gid} ({who.gid}) becomes {who.name} ({who.uid})"
        notes.append(("gid-changed", what))
    if who.uid not in uids.DEFAULT_RANGE:
        notes.append(
            ("uid-outside-homed-range", f"{who.uid}: systemd-homed would own the files by it")
        )
    return Converted(record, notes)


def with_password(old: list[str], file: str, record: UserRecord, *, is_locked: bool) -> str:
    """The old line of ``file`` with the password of ``record``; as it was if all is the same."""
    hashes = record.section("privileged").get("hashedPassword")
    now = hashes[0] if isinstance(hashes, list) and hashes else hashes
    was = old[1].lstrip("!")
    is_new = isinstance(now, str) and now != was
    if not is_new and is_locked == old[1].startswith("!"):
        return ":".join(old)
    new = [*old]
    new[1] = f"{'!' if is_locked else ''}{now if is_new else was}"
    stamp = record.last_password_change_usec
    if is_new and file == "shadow" and stamp is not None:
        new[2] = str(stamp // _DAY_USEC)
    return ":".join(new)


def _id(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 11):
        raise InvalidArgs(
            f"The line of {name} in /etc/passwd has {text[:20]!r} where an id was expected."
        )
    return int(text)


def _person(who: Identity, notes: list[tuple[str, str]]) -> JsonObject:
    """GECOS by finger(1)'s custom: full name, room, telephone numbers; and the shell."""
    members: JsonObject = {}
    full, room, *rest = [*who.gecos.split(","), ""][:8]
    # An ampersand stands for the login name.
    full = full.replace("&", who.name.capitalize())
    for member, text in (("realName", full), ("location", room)):
        if text and text.isprintable() and _is_text(text):
            members[member] = text
        elif text:
            notes.append(("gecos-dropped", member))
    if any(rest):
        notes.append(("gecos-dropped", "telephone numbers and other"))
    if who.shell:
        members["shell"] = who.shell
    return members


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ageing(shadow: list[str]) -> JsonObject:
    """The dates of a line in shadow, which are days, as microseconds."""
    _, _, changed, least, most, warn, inactive, expires, *_ = shadow
    members: dict[str, Json] = {}
    if (day := _days(changed)) is not None:
        # Day 0 says: to be changed at the next login.
        if day == 0:
            members["passwordChangeNow"] = True
        else:
            members["lastPasswordChangeUSec"] = day * _DAY_USEC
    if least_days := _days(least):
        members["passwordChangeMinUSec"] = least_days * _DAY_USEC
    most_days = _days(most)
    if most_days is not None and most_days < _NEVER_DAYS:
        members["passwordChangeMaxUSec"] = most_days * _DAY_USEC
        if warn_days := _days(warn):
            members["passwordChangeWarnUSec"] = warn_days * _DAY_USEC
        if (inactive_days := _days(inactive)) is not None:
            members["passwordChangeInactiveUSec"] = inactive_days * _DAY_USEC
    if (last_day := _days(expires)) is not None:
        members["notAfterUSec"] = last_day * _DAY_USEC
    return members


def _days(text: str) -> int | None:
    """A number of days; None for nothing, and for the -1 that says so as well."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else None
