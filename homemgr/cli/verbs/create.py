"""`homemgr create USER`: make a user record from options and have the home created.

The password is hashed here; the service gets hash and plaintext together, keeps
the first and checks it against the second.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from homemgr.cli import record_source as source
from homemgr.cli import tokens
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.complain import complain
from homemgr.cli.credentials import Credentials, new_password, unlock
from homemgr.cli.home1 import BusError, Home1, Reply, error_is, with_agent
from homemgr.cli.options import is_on
from homemgr.cli.record_edit import Edit
from homemgr.cli.record_options import OPTIONS as RECORD_OPTIONS
from homemgr.record import jsontext
from homemgr.record.names import split_realm

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.record.jsontext import JsonObject

OPTIONS = (
    *RECORD_OPTIONS,
    Option("seize", "", "BOOL", "Drop the signature of a record, to sign it here (default: yes)"),
    source.DRY_RUN,
)
_POLICY_HINT = "Use --enforce-password-policy=no to allow any password for this account."
_NOT_SENT = ("binding", "status")


def run(arguments: Arguments) -> int:
    """Build the record, ask for a password, create."""
    if tokens.show_if_asked(arguments):
        return 0
    record, edit = _new_record(arguments)
    user = str(record["userName"])
    home1 = Home1(arguments)
    blobs = source.blobs_of(arguments)
    if edit.wants_recovery_key:
        show_recovery_key(source.add_recovery_key(record))
    tokens.enrol(record, edit.tokens, may_ask=home1.may_ask)
    _add_password(record, user, edit, may_ask=home1.may_ask)
    if source.is_dry_run(arguments):
        source.show(record)
        return 0
    with_agent(home1)
    try:
        _create(home1, record, user, blobs)
    finally:
        blobs.close()
    return 0


def _new_record(arguments: Arguments) -> tuple[JsonObject, Edit]:
    edit = Edit(os.environ, source.read_text)
    edit.take(arguments)
    identity = arguments.value("identity")
    given = source.read_identity(identity) if identity else {}
    record = edit.apply(given, source.machine_id())
    if arguments.words:
        name, realm = split_realm(arguments.words[0])
        record["userName"] = name
        if realm is not None:
            record["realm"] = realm
    elif not identity:
        raise UsageError("A user name is required.")
    elif not isinstance(record.get("userName"), str):
        raise UsageError(f"--identity={identity} names no user.")
    record.setdefault("disposition", "regular")
    source.stamp(record, with_password=True, override=False)
    # A record that was signed elsewhere could not be changed here: by default it is signed anew.
    seize = is_on(arguments, "seize", by_default=True)
    dropped = (*_NOT_SENT, "signature") if seize else _NOT_SENT
    return {k: v for k, v in record.items() if k not in dropped}, edit


def _add_password(record: JsonObject, user: str, edit: Edit, *, may_ask: bool) -> None:
    """Make sure the record has a hash, and the plaintext for it."""
    privileged, secret = record.get("privileged"), record.get("secret")
    has_hash = isinstance(privileged, dict) and bool(privileged.get("hashedPassword"))
    given = secret.get("password") if isinstance(secret, dict) else None
    count = len(given) if isinstance(given, list) else int(given is not None)
    # The recovery key is in there as a password as well, but is not the user's own.
    if count > edit.wants_recovery_key:
        return
    if not has_hash:
        source.set_password(record, new_password(user, may_ask=may_ask))
        return
    # A hash came with the identity: what it needs is the plaintext that fits.
    for password in Credentials.from_environment().passwords():
        source.add_secret(record, password)


def _create(home1: Home1, record: JsonObject, user: str, blobs: source.Blobs) -> None:
    names, files = blobs.arguments()
    credentials = Credentials()

    def call() -> Reply:
        while True:
            text = jsontext.compact(credentials.merged_into(record))
            try:
                return home1.call("CreateHomeEx", "sa{sh}t", text, names, 0, fds=files)
            except BusError as error:
                if not (home1.may_ask and error_is(error, "LowPasswordQuality")):
                    raise
                complain(error.message, _POLICY_HINT)
                record.pop("secret", None)
                source.set_password(record, new_password(user, may_ask=True))

    unlock(user, credentials, call, f"Cannot create home {user}", may_ask=home1.may_ask)


def show_recovery_key(key: str) -> None:
    """Show a new recovery key, the one time it can be shown."""
    print(
        "A recovery key was made. It unlocks the home in place of the password.\n"
        "Write it down and keep it in a safe place, it cannot be shown again:\n\n"
        f"    {key}\n",
        file=sys.stderr,
    )
