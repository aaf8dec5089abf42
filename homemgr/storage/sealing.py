"""The key of an encrypted home: out of its slots with a word, and into new ones.

Most of the time that this takes is meant to be long, see `key_slots` and `accelerators`.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import BadPassword, HostileHome
from homemgr.kernel import fscrypt
from homemgr.storage import accelerators, key_slots
from homemgr.storage.accelerators import Making
from homemgr.storage.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.kernel.fscrypt import KeyName
    from homemgr.storage.accelerators import Accelerator
    from homemgr.storage.key_slots import Slot
    from homemgr.storage.kind import Words
    from homemgr.storage.top import Top

log = logging.getLogger(__name__)

#: Of processor time for one slot: what most machines do in a fifth of a second takes the slowest
#: more than one check of a password may. A slot that costs more than ours is no reason to wait.
_USUAL_S = 30.0
#: The same with an accelerator made meanwhile, which costs as much once more.
_BOTH_S = 2 * _USUAL_S


class Sealed(NamedTuple):
    """For one word: what a slot holds, and its accelerator if it has one."""

    slot: bytes
    accelerator: bytes | None


def sealed_for(key: bytearray, words: Words, *, is_old: bool) -> list[Sealed]:
    """A slot for each of ``words``, in the format before systemd 259 if ``is_old``."""
    made = []
    for word in words.words:
        salt = key_slots.new_salt()
        with words.working(_BOTH_S):
            if is_old:
                made.append(Sealed(key_slots.seal(key, word, salt, is_old=True), None))
                continue
            with Making(word, salt, key_slots.ITERATIONS) as making:
                text = key_slots.seal(key, word, salt, is_old=False)
        made.append(Sealed(text, making.sealed(key, key_slots.parse(0, text))))
    return made


def unsealed(top: Top, policy: KeyName, words: Words) -> bytearray:
    """The key of the home, with the first of ``words`` that fits; raises BadPassword."""
    fd = top.fd.fileno()
    slots = key_slots.read(fd)
    if not slots:
        raise HostileHome(
            f"{top.image_path} has no key slot that can be read; without one nothing opens it."
        )
    likely = key_slots.likeliest(fd)
    slots.sort(key=lambda slot: slot.number != likely)
    found = _first_that_opens(top, slots, policy, words)
    if found is None:
        raise BadPassword(f"No password given unlocks the key of {top.image_path}.")
    key, number = found
    if number != slots[0].number:
        key_slots.note_likeliest(fd, number)
    return key


def opened_by(slots: Sequence[Slot], policy: KeyName, words: Words) -> list[int]:
    """The numbers of the slots that one of ``words`` opens.

    Accelerators are not asked: one that says "no" where its slot says "yes" would have the slot of
    a password stay that is to go.
    """
    found = []
    for slot in slots:
        for word in words.words:
            key = _key_in(slot, word, policy, words)
            if key is not None:
                wipe(key)
                found.append(slot.number)
                break
    return found


def _first_that_opens(
    top: Top, slots: Sequence[Slot], policy: KeyName, words: Words
) -> tuple[bytearray, int] | None:
    """The key and the number of the slot that gives it."""
    fd = top.fd.fileno()
    # Without a record to compare with there would be no way to doubt what they say.
    beside = {} if words.fits is None else {s.number: accelerators.read(fd, s) for s in slots}
    denied = []
    for word, slot in itertools.product(words.words, slots):
        accelerator = beside.get(slot.number)
        if accelerator is None:
            key = _key_in_slot_at(fd, slot, word, policy, words)
        else:
            key = _key_in(accelerator, word, policy, words)
            denied.append((word, slot))
        if key is not None:
            return key, slot.number
    # Who made an accelerator is unknown. Where the record says that a word is right, the slot has
    # the last word. A word that the record does not know yet, as it was changed elsewhere, has a
    # new slot, beside which there is a new accelerator or none.
    for word, slot in denied:
        if words.fits is not None and words.fits(word):
            log.debug("Accelerator %d says no to a password of the record.", slot.number)
            key = _key_in_slot_at(fd, slot, word, policy, words)
            if key is not None:
                return key, slot.number
    return None


def _key_in_slot_at(
    fd: int, slot: Slot, word: str, policy: KeyName, words: Words
) -> bytearray | None:
    """The key of the home out of a slot, which gets an accelerator if ``word`` is right.

    No login waits for that: it is made meanwhile, by a processor that would idle.
    """
    if slot.is_old or not slot.is_usual or words.fits is None or not accelerators.is_useful():
        return _key_in(slot, word, policy, words)
    with (
        words.working(_BOTH_S, beside=True) as may_be_right,
        Making(word, slot.salt, slot.iterations, lambda: may_be_right(word)) as making,
    ):
        key = _of(policy, slot.unseal(word))
    if key is not None:
        accelerators.write(fd, slot.number, making.sealed(key, slot))
    return key


def _key_in(
    place: Slot | Accelerator, word: str, policy: KeyName, words: Words
) -> bytearray | None:
    """The key of the home, if ``word``, one of ``words``, gets it out of there."""
    with words.working(_USUAL_S, beside=True) if place.is_usual else words.working(beside=True):
        return _of(policy, place.unseal(word))


def _of(policy: KeyName, key: bytearray | None) -> bytearray | None:
    # The policy tells: the old format opens with any word, and a slot may be another's.
    return key if key is not None and fscrypt.key_name(key, policy.version) == policy else None
