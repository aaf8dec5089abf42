"""Is a record fit for what it is brought in for: sections, mandatory rules, types.

Pure: conflicts with other users are the caller's look-ups, signatures another
module's. All refusals begin with the JSON path. Implements homed's table of
sections per call; what exists already is read permissively, as homed does.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from homemgr.errors import HostileHome, InvalidRecord
from homemgr.record import names, uids
from homemgr.record.fields import FIELDS, MATCH_MEMBERS, SERVICE, STORAGES
from homemgr.record.jsontext import MAX_NEW_RECORD_BYTES, child, element, kind
from homemgr.record.model import NOT_EMBEDDED, UserRecord
from homemgr.record.rules import TEXT_OR_TEXTS, refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from homemgr.record.jsontext import Json
    from homemgr.record.machine import Machine


class Purpose(enum.Enum):
    """What a record is brought in for."""

    CREATE = "create"
    REGISTER = "register"
    UPDATE = "update"
    STORED = "stored"  # read from the host file
    EMBEDDED = "embedded"  # read from ~/.identity


_REFUSED_SECTIONS: Final[Mapping[Purpose, tuple[str, ...]]] = {
    Purpose.CREATE: ("binding", "status"),
    Purpose.REGISTER: (),
    Purpose.UPDATE: ("binding", "status"),
    Purpose.STORED: ("secret",),
    Purpose.EMBEDDED: NOT_EMBEDDED,
}
_BROUGHT_IN: Final = (Purpose.CREATE, Purpose.REGISTER, Purpose.UPDATE)
_NEW: Final = (Purpose.CREATE, Purpose.REGISTER)
# homed hands blobs to its worker in such members; a caller must not.
_INTERNAL_PREFIX: Final = "__systemd_homework_internal_"


def validate(
    record: UserRecord,
    purpose: Purpose,
    machine: Machine | None = None,
    *,
    nobody_names: Collection[str] = (),
) -> UserRecord:
    """Return the record to go on with (Register strips sections); raise if it is unfit.

    ``machine`` tells which perMachine entries are for us; without it none is, and only
    their types are checked. ``nobody_names`` are names this machine has given to nobody.
    """
    for section in _REFUSED_SECTIONS[purpose]:
        if section in record.data:
            problem = f".{section}: must not be in this record of {record.user_and_realm}."
            raise HostileHome(problem) if purpose is Purpose.EMBEDDED else InvalidRecord(problem)
    if purpose is Purpose.REGISTER:
        # A host file from another machine may be registered as it is.
        record = record.without(*NOT_EMBEDDED)
    if purpose in _NEW:
        names.check_new_name(record.name, nobody_names)
    _check_matches(record)
    if purpose is Purpose.CREATE:
        _check_types(record, machine)
    _check_kind(record, machine)
    if purpose in _BROUGHT_IN:
        _check_length(record)
        _check_brought_in(record, machine)
        _check_aliases(record, nobody_names)
    # An update cannot change the uid: the binding made at first use wins.
    if purpose in _NEW:
        _check_new_uid(record, machine)
    if purpose is Purpose.CREATE:
        _require_hashes(record)
    return record


def parse_embedded(text: bytes) -> UserRecord:
    """Read ``~/.identity``, which its user can write; whatever is wrong raises HostileHome."""
    try:
        return validate(UserRecord.parse(text), Purpose.EMBEDDED)
    except InvalidRecord as error:
        raise HostileHome(
            f"The .identity file of the home is no user record: {error.message}"
        ) from error


# --- mandatory rules -----------------------------------------------------------------


def _check_kind(record: UserRecord, machine: Machine | None) -> None:
    """The record is one of a home: this holds for every one, wherever it comes from."""
    _expect_word(record.data, "disposition", "", ("regular",))
    _expect_word(record.data, "service", "", (SERVICE,))
    for path, members in _places(record, machine):
        _expect_word(members, "storage", path, STORAGES)


def _check_length(record: UserRecord) -> None:
    """What is sent in one line grows where it is kept, with a line for each value."""
    written = len(record.without("secret").pretty())
    if written > MAX_NEW_RECORD_BYTES:
        raise InvalidRecord(
            f".: expected a record of at most {MAX_NEW_RECORD_BYTES} bytes as it is kept,"
            f" found {written}."
        )


def _check_brought_in(record: UserRecord, machine: Machine | None) -> None:
    """What callers must not decide, and what has to fit together."""
    for name in record.data:
        if name.startswith(_INTERNAL_PREFIX):
            raise InvalidRecord(f"{child('', name)}: must not be set by callers.")
    for path, members in _places(record, machine):
        if members.get("blobDirectory") is not None:
            raise InvalidRecord(f"{path}.blobDirectory: must not be set by callers.")
    _check_gid(record, machine)


def _check_aliases(record: UserRecord, nobody_names: Collection[str]) -> None:
    """An alias answers look-ups like a name: it must not be one of the system's."""
    aliases = _readable(record.data, "aliases", None)
    for index, alias in enumerate(aliases if isinstance(aliases, list) else []):
        if isinstance(alias, str) and names.is_reserved(alias, nobody_names):
            raise InvalidRecord(
                f"{element('.aliases', index)}: expected a name for people, "
                f"found {alias!r}, which is reserved for the system."
            )


def _expect_word(members: Mapping[str, Json], name: str, path: str, words: tuple[str, ...]) -> None:
    value = members.get(name)
    if value is not None and value not in words:
        expected = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
        raise refusal(f"{path}.{name}", expected, value)


def _check_gid(record: UserRecord, machine: Machine | None) -> None:
    """The group of a home has its user's id: both come from one range and one mapping."""
    uid: Json = None
    gid: Json = None
    at = ""
    for path, members in _places(record, machine):
        uid = _readable(members, "uid", uid)
        if members.get("gid") is not None:
            gid, at = _readable(members, "gid", gid), path
    if gid is not None and gid != uid:
        found = f"uid {uid}" if uid is not None else "no uid"
        raise InvalidRecord(f"{at}.gid: expected the same id as uid, found {gid} and {found}.")


def _check_new_uid(record: UserRecord, machine: Machine | None) -> None:
    for _, members in _places(record, machine):
        uid = _readable(members, "uid", None)
        if isinstance(uid, int):
            uids.check_allowed(uid)


def _require_hashes(record: UserRecord) -> None:
    hashes = record.section("privileged").get("hashedPassword")
    if not hashes:
        raise InvalidRecord(".privileged.hashedPassword: expected at least one, found nothing.")


def _readable(members: Mapping[str, Json], name: str, default: Json) -> Json:
    value = members.get(name)
    if value is None:
        return default
    try:
        return FIELDS[name].rule.read(value, "")
    except InvalidRecord:
        return default  # a number that is none is unset, as homed reads it


def _places(record: UserRecord, machine: Machine | None) -> list[tuple[str, Mapping[str, Json]]]:
    """Where fields stand that count here: the regular section and the entries for us."""
    places: list[tuple[str, Mapping[str, Json]]] = [("", record.data)]
    for index, entry in enumerate(record.per_machine):
        if machine is not None and machine.matches(entry):
            places.append((element(".perMachine", index), entry))
    return places


# --- types -----------------------------------------------------------------------------


def _check_matches(record: UserRecord) -> None:
    """A match that cannot be read must not silently apply, or not apply, somewhere."""
    for index, entry in enumerate(record.per_machine):
        for name in MATCH_MEMBERS:
            if name in entry:
                TEXT_OR_TEXTS.read(entry[name], child(element(".perMachine", index), name))


def _check_types(record: UserRecord, machine: Machine | None) -> None:
    """Every known field has its type and stands in a section it may stand in."""
    _check_members(record.data, "R", "")
    for index, entry in enumerate(record.per_machine):
        if machine is None or machine.matches(entry):
            path = element(".perMachine", index)
            _check_members(entry, "M", path)
            _refuse_unknown(entry, path)
    for name, letter in (("privileged", "P"), ("secret", "X")):
        _check_members(record.section(name), letter, f".{name}")


def _check_members(members: Mapping[str, Json], letter: str, path: str) -> None:
    for name, value in members.items():
        field = FIELDS.get(name)
        if field is None:
            continue
        # Above all: a hash or a password outside its section would be shown to everybody.
        if letter not in field.sections:
            raise InvalidRecord(f"{child(path, name)}: must not be set in this section.")
        if value is not None:
            field.rule.read(value, child(path, name))


def _refuse_unknown(entry: Mapping[str, Json], path: str) -> None:
    # homed refuses these, so a home made with them could not be made there again.
    for name, value in entry.items():
        if name not in FIELDS and name not in MATCH_MEMBERS:
            raise InvalidRecord(
                f"{child(path, name)}: expected a known field, found {kind(value)}; "
                "unknown members belong into the top level."
            )
