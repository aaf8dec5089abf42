"""A user record for people: one line per fact, in the order people ask for them.

Shows what the record comes to on this machine. Passwords and hashes are never
shown, only whether they are there.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from homemgr.cli.convert import FULL_SCALE, INFINITY
from homemgr.cli.output import size_text
from homemgr.errors import InvalidRecord
from homemgr.record.fields import FIELDS, HOME_MODE, IDMAP_POLICY, UNASKED_ON
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import Json, JsonObject

_LABEL_WIDTH = 16
_USEC_PER_S = 1_000_000
_SPANS = (("y", 31557600), ("month", 2629800), ("w", 604800), ("d", 86400), ("h", 3600),
          ("min", 60), ("s", 1))  # fmt: skip


def _text(value: Json) -> str:
    return "".join(c if c.isprintable() else " " for c in str(value))


def _words(value: Json) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _yes(value: Json) -> str:
    return "yes" if value else "no"


def _mode(value: Json) -> str:
    return f"{value:04o}" if isinstance(value, int) else _text(value)


def _size(value: Json) -> str:
    if not isinstance(value, int) or value == INFINITY:
        return "infinity"
    return size_text(value)


def _share(value: Json) -> str:
    return f"{value * 100 / FULL_SCALE:.1f}%" if isinstance(value, int) else _text(value)


def _time(value: Json) -> str:
    # Beyond that the C library has no date; "never" is what such a stamp means.
    if not isinstance(value, int) or value // _USEC_PER_S >= 1 << 36:
        return "never"
    when = datetime.fromtimestamp(value // _USEC_PER_S, tz=UTC).astimezone()
    return when.strftime("%a %Y-%m-%d %H:%M:%S %Z")


def _span(value: Json) -> str:
    if not isinstance(value, int) or value == INFINITY:
        return "infinity"
    rest, parts = divmod(value, _USEC_PER_S)[0], []
    for unit, seconds in _SPANS:
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or f"{value}us"


def _count(value: Json) -> str:
    return str(len(value)) if isinstance(value, list) else "0"


#: Label, field, how its value is written. Fields that are not set are not shown.
_LINES: tuple[tuple[str, str, Callable[[Json], str]], ...] = (
    ("Real Name", "realName", _text),
    ("Aliases", "aliases", _words),
    ("Disposition", "disposition", _text),
    ("Last Change", "lastChangeUSec", _time),
    ("Last Passw.", "lastPasswordChangeUSec", _time),
    ("Locked", "locked", _yes),
    ("Not Before", "notBeforeUSec", _time),
    ("Not After", "notAfterUSec", _time),
    ("UID", "uid", _text),
    ("GID", "gid", _text),
    ("Aux. Groups", "memberOf", _words),
    ("Directory", "homeDirectory", _text),
    ("Storage", "storage", _text),
    ("Image Path", "imagePath", _text),
    ("Idmap Policy", IDMAP_POLICY, _text),
    ("Home Mode", HOME_MODE, _text),
    ("No Secret On", UNASKED_ON, _words),
    ("Shell", "shell", _text),
    ("Email", "emailAddress", _text),
    ("Birth Date", "birthDate", _text),
    ("Location", "location", _text),
    ("Icon", "iconName", _text),
    ("Time Zone", "timeZone", _text),
    ("Language", "preferredLanguage", _text),
    ("More Languages", "additionalLanguages", _words),
    ("Environment", "environment", _words),
    ("Umask", "umask", _mode),
    ("Access Mode", "accessMode", _mode),
    ("Mount No SUID", "mountNoSuid", _yes),
    ("Mount No Dev.", "mountNoDevices", _yes),
    ("Mount No Exec.", "mountNoExecute", _yes),
    ("File System", "fileSystemType", _text),
    ("Disk Size", "diskSize", _size),
    ("Disk Size", "diskSizeRelative", _share),
    ("Disk Usage", "diskUsage", _size),
    ("Disk Free", "diskFree", _size),
    ("Nice", "niceLevel", _text),
    ("Tasks Max", "tasksMax", _text),
    ("Memory High", "memoryHigh", _size),
    ("Memory Max", "memoryMax", _size),
    ("CPU Weight", "cpuWeight", _text),
    ("IO Weight", "ioWeight", _text),
    ("Stop Delay", "stopDelayUSec", _span),
    ("Kill Processes", "killProcesses", _yes),
    ("Auto Login", "autoLogin", _yes),
    ("Passw. Policy", "enforcePasswordPolicy", _yes),
    ("Passw. Now", "passwordChangeNow", _yes),
    ("Passw. Min", "passwordChangeMinUSec", _span),
    ("Passw. Max", "passwordChangeMaxUSec", _span),
    ("Passw. Warn", "passwordChangeWarnUSec", _span),
    ("Passw. Inact.", "passwordChangeInactiveUSec", _span),
    ("Rate Interval", "rateLimitIntervalUSec", _span),
    ("Rate Burst", "rateLimitBurst", _text),
    ("Good Auth.", "goodAuthenticationCounter", _text),
    ("Last Good", "lastGoodAuthenticationUSec", _time),
    ("Bad Auth.", "badAuthenticationCounter", _text),
    ("Last Bad", "lastBadAuthenticationUSec", _time),
    ("Local Sig.", "signedLocally", _yes),
    ("Passwords", "hashedPassword", _count),
    ("Recovery Key", "recoveryKeyType", _count),
    ("SSH Pub. Keys", "sshAuthorizedKeys", _count),
)
#: Shown although the record does not set them: their default matters to people.
_SHOWN_ALWAYS = frozenset({"shell", "mountNoSuid", "mountNoDevices", "mountNoExecute"})
assert all(field in FIELDS for _, field, _ in _LINES)


def describe(record: JsonObject, machine_id: str) -> str:
    """The lines for one record, each with its newline."""
    user = UserRecord(record)
    view = user.on(Machine(machine_id, os.uname().nodename))
    state = user.status(view.machine.id).get("state") or "unknown"
    facts = [("User name", _text(user.user_and_realm)), ("State", _text(state))]
    facts += [(label, write(view.get(f))) for label, f, write in _LINES if _is_shown(view, f)]
    return "".join(f"{label:>{_LABEL_WIDTH}}: {value}\n" for label, value in facts)


def _is_shown(view: EffectiveRecord, field: str) -> bool:
    try:
        return field in _SHOWN_ALWAYS or view.is_set(field)
    except InvalidRecord:
        return False
