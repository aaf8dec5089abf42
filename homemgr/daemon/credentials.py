"""Operations that change what unlocks a home: passwords, and slots one by one.

Each is one transaction over all copies: the worker writes the home's own first, which
is the newer one then and counts, so that a kill leaves what worked before or what shall.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from homemgr import errors
from homemgr.daemon.attempts import attempt
from homemgr.daemon.changes import record_in
from homemgr.daemon.home import Home, now_usec
from homemgr.daemon.login import adopt_result
from homemgr.daemon.states import Job, Operation
from homemgr.record import password, signature, slots
from homemgr.record.quality import check_quality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.record.jsontext import JsonObject
    from homemgr.record.secret import Secret

log = logging.getLogger(__name__)

#: What a slot can be filled with over the bus: the rest needs a token.
FILLABLE = (slots.PASSWORD.word, slots.RECOVERY_KEY.word)


async def change_password(home: Home, new_secret: Secret, old_secret: Secret) -> None:
    """Replace the passwords that have no name of their own.

    Without a new one nothing is changed: systemd-homed makes the keys of the storage anew then,
    which its clients ask for after they have added a token.
    """
    if new_secret.passwords:
        password.may_change(home.effective, now_usec())
    # Early, before the current password is asked for. The worker judges those that are said to
    # be old ones, and all of them by the record that counts.
    _check_quality(home, (w for w in new_secret.passwords if w not in old_secret.passwords), ())
    await _change(home, Operation.PASSWD, Job.PASSWD, old_secret, new_secret=new_secret.to_json())
    log.info("The password of home area %s is changed.", home.name)


def list_slots(home: Home) -> list[JsonObject]:
    """The slots by name and kind; no hashes."""
    return [{"name": slot.name, "kind": slot.kind.word} for slot in slots.listed(home.record)]


async def add_slot(home: Home, name: str, kind: str, new_secret: Secret, secret: Secret) -> None:
    """Have one thing more that unlocks the home; raises SlotExists, LowPasswordQuality."""
    if kind not in FILLABLE:
        raise errors.InvalidArgs(f"kind: {kind!r} is none of {', '.join(FILLABLE)}.")
    slots.check_new_name(home.record, name)
    if kind == slots.PASSWORD.word:
        _check_quality(home, new_secret.passwords, secret.passwords)
    members = {"kind": kind, "new_secret": new_secret.to_json()}
    await _change(home, Operation.SLOT, Job.SLOT, secret, do="add", name=name, **members)
    log.info("Slot %s of home area %s is added.", name, home.name)


async def replace_slot(home: Home, name: str, new_secret: Secret, secret: Secret) -> None:
    """Put something else into a slot; what was in it unlocks the home no more."""
    members = {"new_secret": new_secret.to_json()}
    await _change(home, Operation.SLOT, Job.SLOT, secret, do="replace", name=name, **members)
    log.info("Slot %s of home area %s is replaced.", name, home.name)


async def remove_slot(home: Home, name: str, secret: Secret) -> None:
    """Take a slot away; raises LastSlot unless the secret is that of another one."""
    await _change(home, Operation.SLOT, Job.SLOT, secret, do="remove", name=name)
    log.info("Slot %s of home area %s is removed.", name, home.name)


async def test_slot(home: Home, name: str, secret: Secret) -> None:
    """Return if the secret is that of this very slot; raises the credential failure."""
    async with home.exclusively(Operation.SLOT):
        async with attempt(home, secret):
            result = await home.work(Job.SLOT, secret, do="test", name=name)
        await adopt_result(home, result)


def _check_quality(home: Home, words: Iterable[str], old: Iterable[str]) -> None:
    if home.effective.enforce_password_policy:
        for word in words:
            check_quality(word, old, home.effective)


async def _change(
    home: Home, operation: Operation, job: Job, secret: Secret, **arguments: Any
) -> None:
    """Have a worker change the record inside the home, then make that the host copy."""
    keyring = home.services.keyring
    async with home.exclusively(operation):
        key = keyring.signer_like(home.record)
        if key is None:
            raise errors.NoPrivateKey
        # After the state: what an unfixated home has for a record is signed by nobody.
        signature.require_ours(home.record, keyring)
        async with attempt(home, secret):
            result = await home.work(
                job,
                secret,
                private_key=key.to_pem().decode(),
                now_usec=now_usec(),
                former_hashes=[*home.services.former_hashes(home.name)],
                **arguments,
            )
        await home.store_record(record_in(result).with_local_sections_of(home.record))
