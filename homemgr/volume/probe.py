"""Whose encrypted home is on a device: told without a password, a mount or a change.

What is found is a claim that anybody could have written there. Whether it is a home is decided
when it is opened, by the signature of the record in its header.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from homemgr.volume import gpt, luks_header
from homemgr.volume.reading import reader

#: systemd's "Discoverable Partitions Specification", user home.
USER_HOME: Final = "773f91ef-66d4-49b5-bd83-d683bf40ad16"
#: What systemd-homed calls itself in headers: of the volume, and of the token with the record.
SUBSYSTEM: Final = "systemd-home"
RECORD_TYPE: Final = "systemd-homed"


class UserHome(NamedTuple):
    """An encrypted volume that says it is a home; places in bytes from the start of the device."""

    #: ``user`` or ``user@realm``, as the partition is called, or the volume if it has none.
    owner: str
    offset: int
    size: int
    #: Of the partition; None if the whole device is the volume (which may be a partition itself).
    partition_uuid: str | None
    luks_uuid: str
    #: Whether there is a user record in its header; without one it is no home yet, or no more.
    has_record: bool


def user_homes(device: int) -> list[UserHome]:
    """The homes on an open device or image: usually one, none if it holds something else.

    Reads a few MiB at most. OSError if the device cannot be read.
    """
    size = os.lseek(device, 0, os.SEEK_END)
    read = reader(device, 0, size)
    if read(0, len(luks_header.MAGIC)) == luks_header.MAGIC:
        return _home(device, 0, size, None)
    try:
        found = gpt.partitions(read, size)
    except ValueError:
        return []
    homes = [_home(device, p.start, p.size, p) for p in found if p.type_guid == USER_HOME]
    return [home for here in homes for home in here]


def bears(device: int, uuid: str) -> bool:
    """Whether a volume on an open device, or a partition for one, is called so; half made or not.

    Nothing is called nothing. OSError if the device cannot be read.
    """
    if not uuid:
        return False
    size = os.lseek(device, 0, os.SEEK_END)
    read = reader(device, 0, size)
    if luks_header.uuid_at(read) == uuid:
        return True
    try:
        found = gpt.partitions(read, size)
    except ValueError:
        return False
    return any(
        uuid in (part.guid, luks_header.uuid_at(reader(device, part.start, part.size)))
        for part in found
    )


def _home(device: int, offset: int, size: int, partition: gpt.Partition | None) -> list[UserHome]:
    header = luks_header.parse(reader(device, offset, size))
    if header is None:
        return []
    has_record = RECORD_TYPE in header.token_types
    if partition is not None:
        owner, guid = partition.name, partition.guid
        return [UserHome(owner, offset, size, guid, header.uuid, has_record)]
    # Other encrypted disks have headers too.
    if header.subsystem != SUBSYSTEM and not has_record:
        return []
    return [UserHome(header.label, offset, size, None, header.uuid, has_record)]
