"""Verb slot: add, replace, remove or test one of the things that unlock a home.

The record inside the home is written first and then counts, as with passwd: killed
anywhere, all that unlocked before still does, or all that shall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from homemgr import errors
from homemgr.record import changes, password, signature, slots
from homemgr.record.quality import check_quality
from homemgr.record.secret import normalise_recovery_key
from homemgr.work import activate, former, inside, passwd

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.jsontext import Json
    from homemgr.record.model import UserRecord
    from homemgr.record.slots import Kind
    from homemgr.work.task import Task


class Change(NamedTuple):
    """The record that is to come, and what unlocks the home besides then, if that is all."""

    record: UserRecord
    added: str | None = None


def run(task: Task) -> dict[str, object]:
    """Check the credentials, make the change, give the record that counts from then on."""
    change = _CHANGES.get(task.text("do"))
    opened = inside.open_home(task)
    with opened.area:
        if change is None:
            _test(task, opened.record)
            opened.write_through_if_possible()
            return activate.result(task, opened)
        # The one inside may be newer, and somebody else's to change.
        signature.require_ours(opened.record, task.keyring)
        changed, added = change(task, opened.record)
        return passwd.commit(task, opened, changed, added)


def _test(task: Task, record: UserRecord) -> None:
    """Raise the credential failure unless this very slot is unlocked."""
    alone = slots.alone(record, slots.find(record, task.text("name")))
    task.check_credentials(alone)


def _add(task: Task, record: UserRecord) -> Change:
    kind, name = slots.KINDS[task.text("kind")], task.text("name")
    # First what is quick to tell.
    slots.check_new_name(record, name)
    word = _new_word(task, record, kind)
    changed = slots.with_slot(record, name, kind, _entry(task, kind, word))
    return Change(changes.stamped(changed, passwd.now_usec(task)), word)


def _replace(task: Task, record: UserRecord) -> Change:
    slot = slots.find(record, task.text("name"))
    entry = _entry(task, slot.kind, _new_word(task, record, slot.kind))
    return Change(changes.with_slot_replaced(record, slot, entry, passwd.now_usec(task)))


def _remove(task: Task, record: UserRecord) -> Change:
    slot = slots.find(record, task.text("name"))
    left = slots.without_slot(record, slot)
    # Somebody has to have what is left, or this would lock him out.
    try:
        task.check_credentials(left)
    except (errors.BadPassword, errors.BadPasswordAndNoToken, errors.BadRecoveryKey) as error:
        raise errors.LastSlot(
            f"The credential given is that of slot {slot.name}, which is to be removed from home"
            f" area {record.name}: give that of another slot, to show that you can still get in."
        ) from error
    return Change(changes.stamped(left, passwd.now_usec(task)))


_CHANGES: dict[str, Callable[[Task, UserRecord], Change]] = {
    "add": _add,
    "replace": _replace,
    "remove": _remove,
}


def _new_word(task: Task, record: UserRecord, kind: Kind) -> str:
    """What is to unlock the home, in the spelling that is hashed; raises what is wrong with it."""
    words = passwd.new_words(task)
    if len(words) != 1:
        raise errors.InvalidArgs(f"new_secret: expected one {kind.word}, found {len(words)}.")
    (word,) = words
    if kind is slots.PASSWORD:
        _check_password(task, record, word)
        return word
    if kind is not slots.RECOVERY_KEY:
        raise errors.NotSupported(f"Slots of kind {kind.word} cannot be filled with a password.")
    key = normalise_recovery_key(word)
    if key is None:
        raise errors.InvalidArgs("new_secret: expected a recovery key of 64 modhex letters.")
    return key


def _entry(task: Task, kind: Kind, word: str) -> Json:
    """What the record gets for it."""
    if kind is slots.PASSWORD:
        return former.hash_of(task, word)
    return {"type": "modhex64", "hashedPassword": task.hash_password(word)}


def _check_password(task: Task, record: UserRecord, word: str) -> None:
    """Raise unless the age settings and the quality of a password allow it in a slot."""
    effective = record.on(task.machine)
    password.may_change(effective, passwd.now_usec(task))
    if effective.enforce_password_policy:
        check_quality(word, task.secret.passwords, effective)
    for slot in slots.listed(record):
        # Whoever removes one of two slots expects that its password works no more.
        if slot.kind is slots.PASSWORD and task.verify(word, slot.hashed):
            raise errors.SlotExists(f"Slot {slot.name} has this password already: choose another.")
