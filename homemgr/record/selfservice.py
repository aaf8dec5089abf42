"""What users may change in their own record without an administrator.

Pure: both records are stripped of what the *current* one allows, and what is left
must be the same JSON. So the new record can never widen its own permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.record import jsontext
from homemgr.record.fields import UNASKED_ON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord

# Never taken out as a whole, whatever a list says: they have rules of their own, are what the
# comparison is about, or would let who finds a session open do without a password from then on.
_STRUCTURE: Final = frozenset(
    {
        *("userName", "realm", "privileged", "perMachine", "blobManifest", UNASKED_ON),
        *jsontext.UNSIGNED_SECTIONS,
    }
)

# Nor are passwords, though systemd-homed lets them be: a hash tells nothing of the word behind it,
# and so a rule for passwords would hold for those alone who keep to it. Changing the password by
# the call for that is everybody's.
_BY_PASSWD_ALONE: Final = frozenset({"hashedPassword"})


class _Allowed(NamedTuple):
    fields: frozenset[str]
    blobs: frozenset[str]
    privileged: frozenset[str]


def may_update(
    current: UserRecord, new: UserRecord, machine: Machine, *, is_proven: bool = True
) -> bool:
    """Whether the owner himself may turn ``current`` into ``new``.

    If he does not prove that he is the owner (``is_proven``) by a credential, what it
    is compared with stays: or who finds his session open could choose a password.
    """
    allowed = _allowed(current.on(machine))
    if not is_proven:
        allowed = allowed._replace(privileged=frozenset())
    return _rest(current, machine, allowed) == _rest(new, machine, allowed)


def _allowed(current: EffectiveRecord) -> _Allowed:
    return _Allowed(
        frozenset(current.self_modifiable_fields) - _STRUCTURE,
        frozenset(current.self_modifiable_blobs),
        frozenset(current.self_modifiable_privileged) - _BY_PASSWD_ALONE,
    )


def _rest(record: UserRecord, machine: Machine, allowed: _Allowed) -> bytes:
    """The signed part without what may be changed, as text: 1 and true must not be equal."""
    rest = _without_fields(record.data, allowed)
    privileged = record.section("privileged")
    kept: JsonObject = {k: v for k, v in privileged.items() if k not in allowed.privileged}
    _set_or_drop(rest, "privileged", kept)
    entries: list[Json] = []
    for entry in record.per_machine:
        # Entries for other machines are not this machine's to change: they stay whole.
        left = _without_fields(entry, allowed) if machine.matches(entry) else entry
        if left:
            entries.append(left)
    _set_or_drop(rest, "perMachine", entries)
    return jsontext.canonical(rest)


def _without_fields(members: Mapping[str, Json], allowed: _Allowed) -> JsonObject:
    left = {name: value for name, value in members.items() if name not in allowed.fields}
    manifest = left.get("blobManifest")
    if isinstance(manifest, dict):
        blobs: JsonObject = {k: v for k, v in manifest.items() if k not in allowed.blobs}
        _set_or_drop(left, "blobManifest", blobs)
    return left


def _set_or_drop(members: JsonObject, name: str, value: list[Json] | JsonObject) -> None:
    # A section that holds nothing more says the same as a missing one.
    if value:
        members[name] = value
    else:
        members.pop(name, None)
