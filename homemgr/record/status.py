"""What is shown of a home beyond its stored record: status, group, memberships.

Pure content for bus and user database; who may see what is the caller's decision.
While a home is inactive its user keeps his real home directory in view, so that
nobody takes the fallback path for his home; only the shell is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.record.fields import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import Json, JsonObject
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord


def synthesize(
    effective: EffectiveRecord,
    *,
    state: str,
    is_active: bool,
    is_signed_locally: bool | None = None,
    fallback_shell: str | None = None,
    figures: Mapping[str, Json] | None = None,
) -> JsonObject:
    """The status members of now, for :meth:`UserRecord.with_status`; stored counters stay.

    ``is_active`` in the wider sense: the files are there. ``figures`` holds diskSize,
    diskUsage, diskFree, diskCeiling, diskFloor and fileSystemType, None for what is not known.
    Without a fallback shell the fallbacks are left out.
    """
    members: JsonObject = {
        "state": state,
        "service": SERVICE,
        "useFallback": not is_active,
        **(figures or {}),
    }
    if is_signed_locally is not None:
        members["signedLocally"] = is_signed_locally
    if fallback_shell is not None:
        members["fallbackShell"] = fallback_shell
        members["fallbackHomeDirectory"] = effective.home_directory
    return members


def group_record(record: UserRecord, machine: Machine) -> JsonObject:
    """The group every home brings along: named as its user, with the same id."""
    effective = record.on(machine)
    group: JsonObject = {
        "groupName": effective.name,
        "description": f"Primary Group of User {effective.name}",
        "disposition": effective.disposition or "regular",
        "status": {machine.id: {"service": SERVICE}},
    }
    if effective.realm is not None:
        group["realm"] = effective.realm
    if effective.gid is not None:
        group["binding"] = {machine.id: {"gid": effective.gid}}
    return group


def memberships(record: UserRecord, machine: Machine) -> Iterator[tuple[str, str]]:
    """User and group name of each membership: further groups, then the user's own."""
    effective = record.on(machine)
    for group in effective.member_of:
        if group != effective.name:
            yield effective.name, group
    yield effective.name, effective.name
