"""Slots: all that unlocks a home, one by one, each under a name.

A slot is one hash in the ``privileged`` section. The names people gave stand in there
as well, under :data:`NAMES`: name -> hash. systemd-homed keeps and signs members that it
does not know, so they survive it. A name whose hash is gone, because the password was
replaced there, means nothing and goes with the next change. What has no name of its own
is called by its kind and number: ``password``, ``password-2``, ``recovery-key``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from homemgr.errors import InvalidArgs, InvalidRecord, LastSlot, NoSuchSlot, SlotExists
from homemgr.record import names
from homemgr.record.fields import FIELDS, SLOT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord

#: More than these make each wrong password cost as many slow hashes.
MAX_SLOTS: Final = 32


class Kind(NamedTuple):
    """One kind of slots and where the record keeps them."""

    word: str
    #: Field of the privileged section: a list, one element for each slot.
    field: str
    #: Regular field that tells everybody what slots there are, if there is one, ...
    public: str = ""
    #: ... and the member of an element that stands in there.
    member: str = ""


PASSWORD: Final = Kind("password", "hashedPassword")
RECOVERY_KEY: Final = Kind("recovery-key", "recoveryKey", "recoveryKeyType", "type")
#: By the word that people, programs and unnamed slots call them by.
KINDS: Final = {
    kind.word: kind
    for kind in (
        PASSWORD,
        RECOVERY_KEY,
        Kind("pkcs11", "pkcs11EncryptedKey", "pkcs11TokenUri", "uri"),
        Kind("fido2", "fido2HmacSalt", "fido2HmacCredential", "credential"),
    )
}
#: What slots without a name of their own are called.
_UNNAMED: Final = re.compile(rf"({'|'.join(KINDS)})(-[0-9]+)?\Z")


class Slot(NamedTuple):
    """One thing that unlocks a home; ``entry`` is the element that the record has for it."""

    name: str
    kind: Kind
    entry: Json
    is_named: bool

    @property
    def hashed(self) -> str:
        """The crypt(3) hash of what unlocks it."""
        return _hash_of(self.entry)


def listed(record: UserRecord) -> list[Slot]:
    """Every slot of the record, kind by kind, in the order it has them."""
    called = {hashed: name for name, hashed in _names(record).items()}
    found: list[Slot] = []
    for kind in KINDS.values():
        unnamed = 0
        for hashed, entry in {_hash_of(e): e for e in _entries(record, kind)}.items():
            name = called.pop(hashed, None)
            unnamed += name is None
            number = f"-{unnamed}" if unnamed > 1 else ""
            found.append(Slot(name or kind.word + number, kind, entry, name is not None))
    return found


def find(record: UserRecord, name: str) -> Slot:
    """The slot called ``name``; raises NoSuchSlot."""
    for slot in listed(record):
        if slot.name == name:
            return slot
    known = ", ".join(slot.name for slot in listed(record)) or "none"
    raise NoSuchSlot(f"Home area {record.name} has no slot {name!r}; there are: {known}.")


def with_slot(record: UserRecord, name: str, kind: Kind, entry: Json) -> UserRecord:
    """The record with one slot more; raises InvalidArgs for its name, SlotExists."""
    check_new_name(record, name)
    changed = _changed(record, kind, lambda entries: [*entries, entry], {name: _hash_of(entry)})
    return _announcing(changed, kind, entry)


def with_slot_replaced(record: UserRecord, slot: Slot, entry: Json) -> UserRecord:
    """The record with another element in the place of the slot's, under the same name."""

    def replaced(entries: list[Json]) -> list[Json]:
        return [entry if _hash_of(e) == slot.hashed else e for e in entries]

    called = {slot.name: _hash_of(entry)} if slot.is_named else {}
    changed = _changed(record, slot.kind, replaced, called)
    if _told_of(slot.kind, entry) == _told_of(slot.kind, slot.entry):
        return changed
    return _announcing(_without_announced(changed, slot), slot.kind, entry)


def without_slot(record: UserRecord, slot: Slot) -> UserRecord:
    """The record without the slot; raises LastSlot if nothing would unlock the home then."""
    if len(listed(record)) == 1:
        raise LastSlot(
            f"{slot.name} is the only slot of home area {record.name}: nothing would unlock it "
            "any more. Add another slot first."
        )
    changed = _changed(
        record, slot.kind, lambda entries: [e for e in entries if _hash_of(e) != slot.hashed], {}
    )
    return _without_announced(changed, slot)


def alone(record: UserRecord, slot: Slot) -> UserRecord:
    """The record as if ``slot`` were the only one: to test a credential against it."""
    privileged: JsonObject = {slot.kind.field: [slot.entry]}
    return record.replaced(privileged=privileged)


def named_passwords(record: UserRecord) -> list[str]:
    """The hashes of passwords that have a name of their own."""
    return [s.hashed for s in listed(record) if s.kind is PASSWORD and s.is_named]


def check_new_name(record: UserRecord, name: str) -> None:
    """Raise InvalidArgs or SlotExists unless a new slot of the record may be called ``name``."""
    if not is_name(name):
        raise InvalidArgs(
            f"Slot name {name[:64]!r} is not allowed: expected at most {names.LONGEST_SLOT_NAME} "
            "letters, digits, '.', '_' and '-', and none of the names that slots without one have."
        )
    slots = listed(record)
    if any(slot.name == name for slot in slots):
        raise SlotExists(f"Home area {record.name} has a slot {name} already.")
    if len(slots) >= MAX_SLOTS:
        raise SlotExists(f"Home area {record.name} has {len(slots)} slots, no more are possible.")


def is_name(name: str) -> bool:
    """Whether people may give a slot this name."""
    return names.is_slot_name(name) and not _UNNAMED.match(name)


def _hash_of(entry: Json) -> str:
    return str(entry["hashedPassword"]) if isinstance(entry, dict) else str(entry)


def _entries(record: UserRecord, kind: Kind) -> list[Json]:
    return cast("list[Json]", _read(kind.field, record.section("privileged"), []))


def _names(record: UserRecord) -> dict[str, str]:
    called = cast("dict[str, str]", _read(SLOT_NAMES, record.section("privileged"), {}))
    return {name: hashed for name, hashed in called.items() if is_name(name)}


def _read(field: str, section: Mapping[str, Json], default: Json) -> Json:
    value = section.get(field)
    try:
        return default if value is None else FIELDS[field].rule.read(value, "")
    except InvalidRecord:
        return default  # as everywhere: what cannot be read is not there


def _changed(
    record: UserRecord,
    kind: Kind,
    change: Callable[[list[Json]], list[Json]],
    called: Mapping[str, str],
) -> UserRecord:
    """The record with other elements of one kind, and with the names of those that are left."""
    entries = change(_entries(record, kind))
    changed = _with_privileged(record, kind.field, entries)
    hashes = {slot.hashed for slot in listed(changed)}
    known: JsonObject = {n: h for n, h in {**_names(record), **called}.items() if h in hashes}
    return _with_privileged(changed, SLOT_NAMES, known)


def _with_privileged(record: UserRecord, field: str, value: list[Json] | JsonObject) -> UserRecord:
    privileged: JsonObject = {**record.section("privileged")}
    if value:
        privileged[field] = value
    else:
        privileged.pop(field, None)
    return record.replaced(privileged=privileged)


def _told_of(kind: Kind, entry: Json) -> Json:
    """What everybody is told of an element; None where nobody is told anything."""
    return entry[kind.member] if kind.public and isinstance(entry, dict) else None


def _announcing(record: UserRecord, kind: Kind, entry: Json) -> UserRecord:
    """The record that tells everybody of ``entry``, as far as there is a field for it."""
    value = _told_of(kind, entry)
    if value is None:
        return record
    told = cast("list[Json]", _read(kind.public, record.data, []))
    # Tokens are told apart by it; of recovery keys it is told how many there are.
    if value in told and kind is not RECOVERY_KEY:
        return record
    return record.replaced({kind.public: [*told, value]})


def _without_announced(record: UserRecord, slot: Slot) -> UserRecord:
    """The record that tells of ``slot`` no more, as far as it does not tell of others so."""
    kind, value = slot.kind, _told_of(slot.kind, slot.entry)
    if value is None:
        return record
    left = [_told_of(kind, entry) for entry in _entries(record, kind)]
    told = cast("list[Json]", _read(kind.public, record.data, []))
    if told.count(value) <= left.count(value):
        return record
    kept = [*told]
    kept.remove(value)
    return record.replaced({kind.public: kept}) if kept else record.without(kind.public)
