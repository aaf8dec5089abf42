"""Having a home created of a record: a password for it, and the call with its credentials.

Shared by the verbs that make homes; where their records come from is not known here.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from homemgr.cli import qr
from homemgr.cli import record_source as source
from homemgr.cli.arguments import UsageError
from homemgr.cli.complain import complain
from homemgr.cli.credentials import Credentials, new_password, unlock
from homemgr.cli.home1 import BusError, Home1, Reply, error_is
from homemgr.files import Fd, write_all
from homemgr.record import jsontext

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.record.jsontext import JsonObject

_POLICY_HINT = "Use --enforce-password-policy=no to allow any password for this account."
_KEY_FILE = "recovery-key-file"
_NOT_SENT = ("binding", "status")


def without_origin(record: JsonObject, *, seize: bool) -> JsonObject:
    """A copy without what belongs to another machine; ``seize``: its signature as well."""
    # A record that was signed elsewhere could not be changed here.
    dropped = (*_NOT_SENT, "signature") if seize else _NOT_SENT
    return {name: value for name, value in record.items() if name not in dropped}


def add_password(record: JsonObject, user: str, *, may_ask: bool) -> None:
    """Make sure the record has a hash, and the plaintext for it; asks for a new one if neither."""
    privileged, secret = record.get("privileged"), record.get("secret")
    known = privileged if isinstance(privileged, dict) else {}
    given = secret.get("password") if isinstance(secret, dict) else None
    if given:
        # Without a hash of what is given the home would have no password at all.
        first = given[0] if isinstance(given, list) else given
        if not known.get("hashedPassword"):
            record["privileged"] = {**known, "hashedPassword": [source.hashed(str(first))]}
    elif not known.get("hashedPassword"):
        source.set_password(record, new_password(user, may_ask=may_ask))
    else:
        # A hash came with the identity: what it needs is the plaintext that fits.
        for password in Credentials.from_environment().passwords():
            source.add_secret(record, password)


def create(home1: Home1, record: JsonObject, blobs: source.Blobs, *, hint: str = "") -> None:
    """Have the home created, asking for what is missing or too weak; raises Reported.

    ``hint`` is what can be done about a password that is too weak, beside another one.
    """
    user = str(record["userName"])
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
                complain(error.message, hint)
                source.take_password(record)
                source.set_password(record, new_password(user, may_ask=True))

    unlock(user, credentials, call, f"Cannot create home {user}", may_ask=home1.may_ask)


def check_recovery_key_file(arguments: Arguments, *, is_wanted: bool) -> None:
    """Raise UsageError if a file is named for a recovery key that is not to be made."""
    if arguments.has(_KEY_FILE) and not is_wanted:
        raise UsageError(f"--{_KEY_FILE}= needs --recovery-key=yes.")


def hand_over_recovery_key(arguments: Arguments, key: str) -> None:
    """Show a new recovery key, the one time it can be shown, or write it to the file named.

    Before the home has it: a key that could not be written would be no use.
    """
    path = arguments.value(_KEY_FILE)
    if path:
        # A new one, which nobody else can have opened.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with Fd.open(path, flags, 0o600) as file:
            write_all(file.fileno(), f"{key}\n".encode())
            os.fsync(file.fileno())
        return
    print(
        "A recovery key was made. It unlocks the home in place of the password.\n"
        "Write it down and keep it in a safe place, it cannot be shown again:\n\n"
        f"    {key}\n",
        file=sys.stderr,
    )
    qr.show(key, "recovery key")
