"""`homemgr apply FILE...`: make home areas as files declare them, and leave all others alone.

Creates who is missing, changes who differs with one update each, and prints every difference.
Fields that a file does not name stay as they are, a null unsets one. A password is set when a
home is made and never changed here. Somebody declared absent is removed only with --remove.
Exit code: 0 all is as declared, 1 something failed, 3 with --dry-run: something would change.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from homemgr.cli import creating, declared
from homemgr.cli import record_source as source
from homemgr.cli.arguments import Option
from homemgr.cli.complain import Reported, complain, complain_of, printable
from homemgr.cli.credentials import Credentials, credential
from homemgr.cli.home1 import BusError, Home1, Homemgr1, error_is, with_agent
from homemgr.cli.output import json_format, print_json
from homemgr.errors import InvalidRecord
from homemgr.record import jsontext

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.cli.declared import Change, Declared
    from homemgr.record.jsontext import Json, JsonObject

OPTIONS = (
    Option("dry-run", "", "", "Change nothing, say what would be done"),
    Option("remove", "", "", "Delete the home areas of users who are declared absent"),
)
_FAILED, _WOULD_CHANGE = 1, 3
_OFFLINE = 1
_MAX_PASSWORD_BYTES = 4096
_UNCHANGED, _NOT_DONE = "unchanged", "failed"


def run(arguments: Arguments) -> int:
    """All users of all files in order; one that fails does not stop the others."""
    form = json_format(arguments)
    users = [user for path in arguments.words for user in _read(path)]
    home1 = Home1(arguments)
    with_agent(home1)
    done = [_one(arguments, home1, user) for user in users]
    if form:
        print_json(done, form)
    else:
        _print(done)
    actions = {entry["action"] for entry in done}
    if _NOT_DONE in actions:
        return _FAILED
    return _WOULD_CHANGE if arguments.has("dry-run") and actions - {_UNCHANGED} else 0


def _one(arguments: Arguments, home1: Home1, user: Declared) -> dict[str, Json]:
    """Do what there is to do about one user; tells what that was, or complains."""
    try:
        action, changes = _plan(home1, user)
        if not arguments.has("dry-run"):
            _carry_out(arguments, home1, user, action, changes)
    except (InvalidRecord, BusError, OSError, Reported) as error:
        _complain(user, error)
        return _told(user, _NOT_DONE, [])
    return _told(user, action, changes)


def _complain(user: Declared, error: Exception) -> None:
    about = f"User {user.user}"
    match error:
        case InvalidRecord():
            complain(f"{about}: {error.message}")
        case BusError():
            complain_of(about, error)
        case OSError():
            complain(f"{about}: {error.filename}: {error.strerror}")
    # What was Reported has been said where it was found.


def _read(path: str) -> list[Declared]:
    if path == "-":
        data = sys.stdin.buffer.read(jsontext.MAX_RECORD_BYTES + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(jsontext.MAX_RECORD_BYTES + 1)
    try:
        return declared.read(jsontext.parse_any(data))
    except InvalidRecord as error:
        raise InvalidRecord(f"{path}: {error.message}") from error


# --- what there is to do ------------------------------------------------------------------


def _plan(home1: Home1, user: Declared) -> tuple[str, list[Change]]:
    """What is to be done about one user, and which fields differ."""
    try:
        text, incomplete, _ = home1.call("GetUserRecordByName", "s", user.user).body
    except BusError as error:
        if not error_is(error, "NoSuchHome"):
            raise
        if user.state == declared.ABSENT:
            return _UNCHANGED, []
        return "create", declared.differences({}, declared.without_nulls(user.record))
    if user.state == declared.ABSENT:
        return "remove", []
    if incomplete:
        complain(f"User {user.user}: only root and the user himself see the whole record.")
        raise Reported
    current = jsontext.parse(str(text))
    if current.get("userName") != user.user:
        complain(f"{user.user} is another name of user {current.get('userName')}.")
        raise Reported
    changes = declared.differences(current, user.record)
    return ("update" if changes else _UNCHANGED), changes


def _carry_out(
    arguments: Arguments,
    home1: Home1,
    user: Declared,
    action: str,
    changes: list[Change],
) -> None:
    if action == "create":
        _create(arguments, home1, user)
    elif action == "update":
        _update(arguments, home1, user, changes)
    elif action == "remove":
        if not arguments.has("remove"):
            complain(
                f"User {user.user} is declared absent, and his home area is here.",
                "Deleting it with all its files has to be asked for: --remove.",
            )
            raise Reported
        home1.call("RemoveHome", "s", user.user)


def _create(arguments: Arguments, home1: Home1, user: Declared) -> None:
    record = creating.without_origin(declared.without_nulls(user.record), seize=True)
    record.setdefault("disposition", "regular")
    source.stamp(record, with_password=True, override=False)
    password = _password(user)
    if password is not None:
        source.set_password(record, password)
    elif not record.get("secret") and _has_hash(record):
        # The administrator answers for the hash: there is nothing to compare it with.
        Homemgr1(arguments).call("CreateHomeOfHash", "s", jsontext.compact(record))
        return
    creating.add_password(record, user.user, may_ask=home1.may_ask)
    creating.create(home1, record, source.Blobs())


def _update(arguments: Arguments, home1: Home1, user: Declared, changes: list[Change]) -> None:
    (text, *_) = home1.call("GetUserRecordByName", "s", user.user).body
    current = jsontext.parse(str(text))
    record = declared.changed(current, changes)
    source.stamp(record, with_password=False, override=True)
    credentials = Credentials()
    password = _password(user)
    if password is not None:
        credentials.add_password(password)
    record = credentials.merged_into({**record, **_given_secret(user)})
    # Without a password the host copy alone, which the home follows at its next use.
    flags = 0 if record.get("secret") else _OFFLINE
    machine = source.machine_id(arguments)
    directory = source.on_machine(arguments, source.blob_directory(current, user.user, machine))
    blobs = source.Blobs()
    try:
        # All of them, or they would be removed.
        if os.path.isdir(directory):
            blobs.add_directory(directory)
        names, files = blobs.arguments()
        compact = jsontext.compact(record)
        home1.call("UpdateHomeEx", "sa{sh}t", compact, names, flags, fds=files)
    finally:
        blobs.close()


def _has_hash(record: JsonObject) -> bool:
    privileged = record.get("privileged")
    return isinstance(privileged, dict) and bool(privileged.get("hashedPassword"))


def _given_secret(user: Declared) -> JsonObject:
    secret = user.record.get("secret")
    return {"secret": secret} if secret else {}


def _password(user: Declared) -> str | None:
    """The password that the file points to; raises Reported if it is not there."""
    if user.password is None:
        return None
    kind, name = user.password
    found: str | None
    if kind == "passwordEnvironment":
        found = os.environ.get(name)
    elif kind == "passwordCredential":
        found = credential(name)
    else:
        with open(name, encoding="utf-8") as file:
            found = file.read(_MAX_PASSWORD_BYTES).removesuffix("\n")
    if not found:
        complain(f"User {user.user}: {kind} {name} gives no password.")
        raise Reported
    return found


# --- telling ------------------------------------------------------------------------------


def _told(user: Declared, action: str, changes: list[Change]) -> dict[str, Json]:
    shown: list[Json] = [
        {"field": change.field}
        if change.is_private
        else {"field": change.field, "before": change.before, "after": change.after}
        for change in changes
    ]
    return {"user": user.user, "action": action, "changes": shown}


def _print(done: list[dict[str, Json]]) -> None:
    for entry in done:
        print(printable(f"{entry['user']}: {entry['action']}"))
        changes = entry["changes"]
        for change in changes if isinstance(changes, list) else []:
            assert isinstance(change, dict)
            print(printable(f"  {_line(change)}"))


def _line(change: JsonObject) -> str:
    if "after" not in change:
        return f"{change['field']}: (not shown)"
    return f"{change['field']}: {_value(change['before'])} -> {_value(change['after'])}"


def _value(value: Json) -> str:
    return "unset" if value is None else jsontext.compact(value)
