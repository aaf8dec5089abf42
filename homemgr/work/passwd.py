"""Verb passwd: new hashes into the record, signed, written into the home.

The daemon writes the host copy after this. Killed in between, the home's copy
is the newer one and counts: the new password works. Where passwords unlock a key the
new ones do so before, and the old ones no more after the record is written.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import changes, password, signature, slots
from homemgr.record.quality import check_quality
from homemgr.record.secret import Secret
from homemgr.work import former, inside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from homemgr.record.model import UserRecord
    from homemgr.work.inside import Opened
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Check the old credentials and replace the hashes; gives the new record.

    Recovery keys and tokens stay as they are, and nobody has to fetch them from the safe for
    it. Only of a storage that has a key, if the old password is not among what was given, all
    that is to stay has to be there. Without a new password such a key is sealed anew.
    """
    words = new_words(task)
    opened = inside.open_home(task)
    with opened.area:
        # The one inside may be newer, and somebody else's to change.
        signature.require_ours(opened.record, task.keyring)
        if not words:
            with _rekeying(task, opened, opened.record):
                opened.write_through_if_possible()
            return {"record": opened.record.embedded().data}
        _require_news(task, opened.record, words)
        hashes = [former.hash_of(task, word) for word in words]
        changed = changes.with_new_password(opened.record, hashes, now_usec(task))
        return commit(task, opened, changed)


def commit(
    task: Task, opened: Opened, changed: UserRecord, added: str | None = None
) -> dict[str, object]:
    """Sign ``changed`` and make it the home's own record; gives it to the daemon.

    The key of the storage goes with it, if there is one. Either all that goes has to be there
    then, or all that stays, unless ``added`` is all that is new.
    """
    key = signature.PrivateKey.from_pem(task.text("private_key").encode())
    signed = signature.sign(changed, key)
    with _rekeying(task, opened, signed, added):
        opened.write(signed)
    return {"record": signed.embedded().data}


def _rekeying(
    task: Task, opened: Opened, record: UserRecord, added: str | None = None
) -> AbstractContextManager[None]:
    """What has the home's key go with what unlocks ``record``; raises what is missing most."""
    if not task.abilities.has_key:
        return nullcontext()
    if added is not None:
        return opened.area.rekeying(task.words((added,)), None)
    identity = record.embedded().pretty()
    given = _new_secret(task).merged(task.secret).merged(Secret(task.token_words.words))
    before, after = (each.on(task.machine) for each in (opened.record, record))
    exchange = password.exchange(before, after, given, task.verify)
    if exchange is not None:
        fresh, dropped = map(task.words, exchange)
        return opened.area.rekeying(fresh, identity, dropped)
    words = password.require_all(after, task.complete(given, record), task.verify)
    return opened.area.rekeying(task.words(words), identity)


def _new_secret(task: Task) -> Secret:
    """What is to come; empty where something only goes."""
    return (
        Secret()
        if task.argument("new_secret") is None
        else Secret.from_json(task.object("new_secret"))
    )


def new_words(task: Task) -> tuple[str, ...]:
    """The passwords that are to come."""
    found = _new_secret(task).passwords
    if "" in found:
        raise errors.InvalidArgs("new_secret: an empty password protects nothing.")
    return found


def now_usec(task: Task) -> int:
    """The time of the change, by the daemon's clock."""
    now = task.argument("now_usec")
    assert isinstance(now, int)
    return now


def _require_news(task: Task, record: UserRecord, words: Sequence[str]) -> None:
    """Raise LowPasswordQuality for a password that is too weak, or if none is new.

    One that is among the old ones is kept and no news: but only if the record has it. The
    caller may call anything an old password.
    """
    effective = record.on(task.machine)
    if not effective.enforce_password_policy:
        return
    hashes = effective.hashed_passwords
    given = task.secret.passwords
    kept = {w for w in words if w in given and any(task.verify(w, h) for h in hashes)}
    if len(kept) == len(words) == len(hashes) - len(slots.named_passwords(record)):
        raise errors.LowPasswordQuality(
            f"The new password of {record.name} is the one that it has already: choose another."
        )
    for word in words:
        if word not in kept:
            check_quality(word, (old for old in given if old != word), effective)
