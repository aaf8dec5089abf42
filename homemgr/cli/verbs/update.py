"""`homemgr update [USER]`: change a home's user record, keeping everything not named.

The whole record is fetched, changed and sent back, with all its blobs, as the
service expects it. See UpdateHomeEx in org.freedesktop.home1(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.cli import record_source as source
from homemgr.cli import tokens
from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.creating import check_recovery_key_file, hand_over_recovery_key
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.home1 import Home1, Reply, own_name, with_agent
from homemgr.cli.record_edit import Edit
from homemgr.cli.record_options import OPTIONS as RECORD_OPTIONS
from homemgr.errors import AccessDenied
from homemgr.record import jsontext

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments
    from homemgr.record.jsontext import JsonObject

OPTIONS = (
    *RECORD_OPTIONS,
    Option("offline", "", "", "Change this machine's copy only, the home follows at next use"),
    Option("and-resize", "", "", "Apply the size as well"),
    Option("and-change-password", "", "", "Write all keys anew as well"),
    source.DRY_RUN,
)
_OFFLINE = 1
_AS_RECORDED = (1 << 64) - 1
_NOT_SENT = ("binding", "status", "signature", "blobManifest")


def run(arguments: Arguments) -> int:
    """Fetch, change, send."""
    if tokens.show_if_asked(arguments):
        return 0
    edit = Edit(os.environ, source.read_text)
    edit.take(arguments)
    is_given = arguments.has("identity") or source.has_blob_options(arguments)
    if edit.is_empty and not is_given:
        raise UsageError("No field to change was given.")
    check_recovery_key_file(arguments, is_wanted=edit.wants_recovery_key)
    home1 = Home1(arguments)
    with_agent(home1)
    record, directory = _changed_record(home1, arguments, edit)
    if source.is_dry_run(arguments):
        source.show(record)
        return 0
    user = str(record["userName"])
    # All of them, changed or not: an update without a blob is one that removes it.
    blobs = source.blobs_of(arguments, directory if os.path.isdir(directory) else None)
    try:
        credentials = _update(home1, user, record, blobs, offline=arguments.has("offline"))
    finally:
        blobs.close()
    if edit.has_size or arguments.has("and-resize"):
        _follow_up(home1, user, credentials, "ResizeHome", "sts", _AS_RECORDED)
    if arguments.has("and-change-password") or edit.tokens:
        # A key of the storage is to be unlocked by a new token too, which takes all the others.
        credentials.take_pins(record)
        _follow_up(home1, user, credentials, "ChangePasswordHome", "sss", "{}")
    return 0


def _changed_record(home1: Home1, arguments: Arguments, edit: Edit) -> tuple[JsonObject, str]:
    """The record to send, and the directory of the blobs that have to go along."""
    identity, machine = arguments.value("identity"), source.machine_id(arguments)
    current = _current_record(home1, arguments, identity)
    directory = source.on_machine(
        arguments, source.blob_directory(current, str(current["userName"]), machine)
    )
    # What the service makes itself is refused if it is sent; a signature would no longer fit.
    if not identity:
        current = {k: v for k, v in current.items() if k not in _NOT_SENT}
    record = edit.apply(current, machine)
    if edit.wants_recovery_key:
        hand_over_recovery_key(arguments, source.add_recovery_key(record))
    tokens.enrol(record, edit.tokens, may_ask=home1.may_ask)
    # A complete record may bring its own stamp and signature; only a missing stamp is added.
    source.stamp(record, with_password=edit.wants_recovery_key, override=not identity)
    return record, directory


def _current_record(home1: Home1, arguments: Arguments, identity: str) -> JsonObject:
    name = arguments.words[0] if arguments.words else ""
    if not identity:
        text, incomplete, _ = home1.call("GetUserRecordByName", "s", name or own_name()).body
        if incomplete:
            raise AccessDenied("Only root and the user himself see the whole record to change.")
        return jsontext.parse(str(text))
    record = source.read_identity(identity)
    if record.setdefault("userName", name or None) is None:
        raise UsageError(f"--identity={identity} names no user, and neither does the command line.")
    if name and record["userName"] != name:
        raise UsageError(f"--identity={identity} is for {record['userName']}, not for {name}.")
    return record


def _update(
    home1: Home1, user: str, record: JsonObject, blobs: source.Blobs, *, offline: bool
) -> Credentials:
    credentials = Credentials.from_environment()
    names, files = blobs.arguments()
    flags = _OFFLINE if offline else 0

    def call() -> Reply:
        text = jsontext.compact(credentials.merged_into(record))
        return home1.call("UpdateHomeEx", "sa{sh}t", text, names, flags, fds=files)

    unlock(user, credentials, call, f"Cannot update home {user}", may_ask=home1.may_ask)
    return credentials


def _follow_up(
    home1: Home1,
    user: str,
    credentials: Credentials,
    member: str,
    signature: str,
    argument: int | str,
) -> None:
    """A second call that brings the storage in line with the record."""

    def call() -> Reply:
        return home1.call(member, signature, user, argument, credentials.to_json())

    doing = f"Home {user} is updated, but {member} failed"
    unlock(user, credentials, call, doing, may_ask=home1.may_ask)
