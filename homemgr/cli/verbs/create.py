"""`homemgr create USER`: make a user record from options and have the home created.

The password is hashed here; the service gets hash and plaintext together, keeps
the first and checks it against the second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.cli import creating, tokens
from homemgr.cli import record_source as source
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.home1 import Home1, with_agent
from homemgr.cli.options import is_on
from homemgr.cli.record_edit import Edit
from homemgr.cli.record_options import OPTIONS as RECORD_OPTIONS
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


def run(arguments: Arguments) -> int:
    """Build the record, ask for a password, create."""
    if tokens.show_if_asked(arguments):
        return 0
    record, edit = _new_record(arguments)
    user = str(record["userName"])
    creating.check_recovery_key_file(arguments, is_wanted=edit.wants_recovery_key)
    home1 = Home1(arguments)
    blobs = source.blobs_of(arguments)
    # The password first: a recovery key goes along as one more of them.
    creating.add_password(record, user, may_ask=home1.may_ask)
    if edit.wants_recovery_key:
        creating.hand_over_recovery_key(arguments, source.add_recovery_key(record))
    tokens.enrol(record, edit.tokens, may_ask=home1.may_ask)
    if source.is_dry_run(arguments):
        source.show(record)
        return 0
    with_agent(home1)
    try:
        creating.create(home1, record, blobs, hint=_POLICY_HINT)
    finally:
        blobs.close()
    return 0


def _new_record(arguments: Arguments) -> tuple[JsonObject, Edit]:
    edit = Edit(os.environ, source.read_text)
    edit.take(arguments)
    identity = arguments.value("identity")
    given = source.read_identity(identity) if identity else {}
    record = edit.apply(given, source.machine_id(arguments))
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
    return creating.without_origin(record, seize=is_on(arguments, "seize", by_default=True)), edit
