"""Verb passwd: new hashes into the record, signed, written into the home.

The daemon writes the host copy after this. Killed in between, the home's copy
is the newer one and counts: the new password works. Where passwords unlock a key the
new ones do so before, and the old ones no more after the record is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import changes, password, signature
from homemgr.record.secret import Secret
from homemgr.work import inside

if TYPE_CHECKING:
    from homemgr.work.task import Task


def run(task: Task) -> dict[str, object]:
    """Check the old credentials and replace the hashes; gives the new record."""
    new_secret = _new_secret(task)
    opened = inside.open_home(task)
    with opened.area:
        # The one inside may be newer, and somebody else's to change.
        signature.require_ours(opened.record, task.keyring)
        hashes = [task.hash_password(word) for word in new_secret.passwords]
        now_usec = task.argument("now_usec")
        assert isinstance(now_usec, int)
        record = changes.with_new_password(opened.record, hashes, now_usec)
        # Recovery keys and tokens keep their hashes: their plaintexts must be at hand.
        merged = new_secret.merged(task.secret)
        words = password.require_all(record.on(task.machine), merged, task.verify)
        key = signature.PrivateKey.from_pem(task.text("private_key").encode())
        signed = signature.sign(record, key)
        with opened.area.rekeying(task.words(words), replacing=True):
            opened.write(signed)
    return {"record": signed.embedded().data}


def _new_secret(task: Task) -> Secret:
    found = Secret.from_json(task.object("new_secret"))
    if not found.passwords:
        raise errors.InvalidArgs("new_secret: expected a new password, found none.")
    if "" in found.passwords:
        raise errors.InvalidArgs("new_secret: an empty password protects nothing.")
    return found
