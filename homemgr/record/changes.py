"""Changes the service makes to a record, and the rules for changes it is handed.

Pure: the time is handed in, signing afterwards is the caller's. Implements homed's
rules for lastChangeUSec and what a password change does to a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import RecordDowngrade, RecordMismatch
from homemgr.record import slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.model import UserRecord
    from homemgr.record.slots import Slot

_CHANGE_NOW = "passwordChangeNow"


def with_new_password(record: UserRecord, hashes: Sequence[str], now_usec: int) -> UserRecord:
    """The record with new password hashes, stamped now and unsigned.

    They replace all that have no name: who gave a password a name of its own wants to keep
    it beside the others, and takes it away by that name. A change fulfils a demand to
    change, so that is dropped wherever it stands.
    """
    privileged: JsonObject = {**record.section("privileged")}
    privileged["hashedPassword"] = [*hashes, *slots.named_passwords(record)]
    return _fulfilled(record.replaced(privileged=privileged), now_usec)


def with_slot_replaced(record: UserRecord, slot: Slot, entry: Json, now_usec: int) -> UserRecord:
    """The record with another hash in a slot, stamped now and unsigned.

    The password without a name is the one whose age counts: replacing that is a change.
    """
    changed = slots.with_slot_replaced(record, slot, entry)
    if slot.kind is slots.PASSWORD and not slot.is_named:
        return _fulfilled(changed, now_usec)
    return stamped(changed, now_usec)


def _fulfilled(record: UserRecord, now_usec: int) -> UserRecord:
    changed = stamped(record, now_usec, is_password_change=True).without(_CHANGE_NOW)
    return _without_demand(changed)


def stamped(record: UserRecord, now_usec: int, *, is_password_change: bool = False) -> UserRecord:
    """The record as changed now and without its signatures, which no longer hold.

    Raises RecordMismatch if it claims to be changed now or later: two records of one
    stamp could not be told apart, and a wrong clock must not make old ones win.
    """
    names = ["lastChangeUSec", *(["lastPasswordChangeUSec"] if is_password_change else [])]
    for name, stamp in (
        ("lastChangeUSec", record.last_change_usec),
        ("lastPasswordChangeUSec", record.last_password_change_usec),
    ):
        if name in names and stamp is not None and stamp >= now_usec:
            raise RecordMismatch(
                f"The record of {record.user_and_realm} was changed in the future: expected "
                f"{name} before {now_usec}, found {stamp}. Is the clock right?"
            )
    return record.without("signature").replaced(dict.fromkeys(names, now_usec))


def with_disk_size(record: UserRecord, machine_id: str, size: int, now_usec: int) -> UserRecord:
    """The record with another size on one machine, stamped now and unsigned.

    Somebody chose it, so the home takes no part any more where sizes are shared out. Written
    into the entry that is for this machine alone, which has to be the last that could count.
    """
    members: JsonObject = {"diskSize": size, "rebalanceWeight": 0}
    entries: list[Json] = [*record.per_machine]
    last = record.per_machine[-1] if entries else {}
    if last.get("matchMachineId") in (machine_id, [machine_id]):
        entries[-1] = {**last, **members}
    else:
        entries.append({"matchMachineId": [machine_id], **members})
    return stamped(record, now_usec).replaced(perMachine=entries)


def without_future(record: UserRecord, now_usec: int) -> UserRecord:
    """The record without its signatures and with no stamp later than now.

    For a record that is signed anew where it arrives: the clock it was stamped by may have
    been ahead, and until ours gets there neither `stamped` nor any client could change it.
    """
    stamps = {
        "lastChangeUSec": record.last_change_usec,
        "lastPasswordChangeUSec": record.last_password_change_usec,
    }
    late = {name: now_usec for name, stamp in stamps.items() if stamp and stamp > now_usec}
    return record.without("signature").replaced(late)


def check_update(current: UserRecord, new: UserRecord) -> None:
    """Refuse an update that is not a newer state of the same user's record.

    The same record once more is accepted here; the home then answers that it has it.
    """
    if not current.is_same_user(new):
        raise RecordMismatch(
            f"The new record is about {new.user_and_realm}: expected {current.user_and_realm}."
        )
    # A missing stamp is older than any.
    old_stamp = -1 if current.last_change_usec is None else current.last_change_usec
    new_stamp = -1 if new.last_change_usec is None else new.last_change_usec
    if new_stamp < old_stamp:
        raise RecordDowngrade(
            f"The new record of {new.user_and_realm} is older than the current one: "
            f"expected lastChangeUSec of {old_stamp} or later."
        )
    if new_stamp == old_stamp and not new.same_content(current):
        raise RecordMismatch(
            f"The new record of {new.user_and_realm} differs from the current one, but "
            f"has the same lastChangeUSec: expected one later than {old_stamp}."
        )


def _without_demand(record: UserRecord) -> UserRecord:
    if not any(_CHANGE_NOW in entry for entry in record.per_machine):
        return record
    entries: list[Json] = []
    for entry in record.per_machine:
        left: JsonObject = {k: v for k, v in entry.items() if k != _CHANGE_NOW}
        if left:
            entries.append(left)
    return record.replaced(perMachine=entries) if entries else record.without("perMachine")
