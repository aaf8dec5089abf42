"""Users as a file declares them, and what there is to do until the machine is like that.

Pure: where passwords come from is only named here. Members beside those of a user record:
``state`` ("present" or "absent") and one of ``passwordFile``, ``passwordCredential`` and
``passwordEnvironment``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import InvalidRecord
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

PRESENT, ABSENT = "present", "absent"
#: Where a password may come from, by the name of the member.
SOURCES = ("passwordFile", "passwordCredential", "passwordEnvironment")
_STATE = "state"
#: Made by services, or at each change: what a file says of them is about another moment.
_NOT_DECLARED = frozenset(
    {"signature", "binding", "status", "secret", "blobManifest", "blobDirectory"}
    | {"lastChangeUSec", "lastPasswordChangeUSec"}
)
#: Set when a home is made; later only its user, or who knows his password, changes it.
_AT_CREATION = frozenset({"hashedPassword"})
_PRIVILEGED = "privileged"


class Declared(NamedTuple):
    """One user of the file."""

    user: str
    state: str
    #: As it is in the file, without what is not part of a record.
    record: JsonObject
    #: The name of the member, and what it says; None if no password is named.
    password: tuple[str, str] | None


class Change(NamedTuple):
    """One field that differs; None stands for a field that is not set."""

    field: str
    before: Json
    after: Json

    @property
    def is_private(self) -> bool:
        """Whether its values are for nobody to read."""
        return self.field.startswith(f"{_PRIVILEGED}.")


def read(value: Json) -> list[Declared]:
    """The users of a file: one record or a list of them; raises InvalidRecord."""
    entries = value if isinstance(value, list) else [value]
    found = [_entry(entry, f"[{index}]") for index, entry in enumerate(entries)]
    names = [declared.user for declared in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRecord(f"User {name} is declared twice.")
    return found


def _entry(value: Json, where: str) -> Declared:
    if not isinstance(value, dict):
        raise InvalidRecord(f"{where}: expected an object, a user record.")
    user = value.get("userName")
    if not isinstance(user, str):
        raise InvalidRecord(f"{where}.userName: expected the name of a user.")
    state = value.get(_STATE, PRESENT)
    if state not in (PRESENT, ABSENT):
        raise InvalidRecord(f"{where}.{_STATE}: expected {PRESENT} or {ABSENT}.")
    named = [(name, value[name]) for name in SOURCES if name in value]
    if len(named) > 1:
        raise InvalidRecord(f"{where}: {named[0][0]} and {named[1][0]} exclude each other.")
    password = None
    for name, text in named:
        if not isinstance(text, str):
            raise InvalidRecord(f"{where}.{name}: expected a string.")
        password = (name, text)
    record: JsonObject = {k: v for k, v in value.items() if k not in (_STATE, *SOURCES)}
    try:
        # A null takes a field away, and is in no record.
        UserRecord(without_nulls(record))
    except InvalidRecord as error:
        raise InvalidRecord(f"{where}{error.message}") from error
    return Declared(user, str(state), record, password)


def without_nulls(record: JsonObject) -> JsonObject:
    """What to create a home of: fields that are to be unset are simply not there."""
    result: JsonObject = {}
    for name, value in record.items():
        if name == _PRIVILEGED and isinstance(value, dict):
            value = {k: v for k, v in value.items() if v is not None}
        if value is not None:
            result[name] = value
    return result


def differences(current: JsonObject, declared: JsonObject) -> list[Change]:
    """The fields in which ``current`` is not as declared; what is not declared may be anything."""
    found = [
        Change(name, current.get(name), value)
        for name, value in declared.items()
        if name not in _NOT_DECLARED and name != _PRIVILEGED and current.get(name) != value
    ]
    wanted, known = (_object(record.get(_PRIVILEGED)) for record in (declared, current))
    return found + [
        Change(f"{_PRIVILEGED}.{name}", known.get(name), value)
        for name, value in wanted.items()
        if name not in _AT_CREATION and known.get(name) != value
    ]


def changed(current: JsonObject, changes: list[Change]) -> JsonObject:
    """A copy of ``current`` with the changes made, without what the service makes itself."""
    record: JsonObject = {k: v for k, v in current.items() if k not in _NOT_DECLARED}
    privileged = dict(_object(record.pop(_PRIVILEGED, None)))
    for change in changes:
        target = privileged if change.is_private else record
        name = change.field.removeprefix(f"{_PRIVILEGED}.")
        target.pop(name, None)
        if change.after is not None:
            target[name] = change.after
    return {**record, _PRIVILEGED: privileged} if privileged else record


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
