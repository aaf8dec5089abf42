"""What is shown of a home beyond its stored record: status, group, memberships.

Pure content for bus and user database; who may see what is the caller's decision.
While a home is inactive its user keeps his real home directory in view, so that
nobody takes the fallback path for his home; only the shell is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homemgr.record.fields import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.record.jsontext import JsonObject
    from homemgr.record.machine import Machine
    from homemgr.record.model import UserRecord


@dataclass(frozen=True)
class Situation:
    """How a home is right now, as far as its status says it."""

    #: homed's word for the state.
    state: str
    #: Active in the wider sense: its files are there.
    is_active: bool
    #: Signed by this machine alone; None if that is not known.
    signed_locally: bool | None = None
    #: Shell while inactive; None to leave fallbacks out.
    fallback_shell: str | None = None
    #: diskSize, diskUsage, diskFree, diskCeiling, diskFloor, as far as known.
    disk: Mapping[str, int] = field(default_factory=dict)
    file_system_type: str | None = None


def with_situation(record: UserRecord, machine: Machine, situation: Situation) -> UserRecord:
    """The record as shown: stored counters stay, everything else in status is of now."""
    members: JsonObject = {
        "state": situation.state,
        "service": SERVICE,
        "useFallback": not situation.is_active,
        **situation.disk,
    }
    if situation.signed_locally is not None:
        members["signedLocally"] = situation.signed_locally
    if situation.file_system_type is not None:
        members["fileSystemType"] = situation.file_system_type
    if situation.fallback_shell is not None:
        members["fallbackShell"] = situation.fallback_shell
        members["fallbackHomeDirectory"] = record.on(machine).home_directory
    return record.with_status(machine.id, members)


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
