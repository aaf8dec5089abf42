"""What a record says of the encrypted volume of its home: effective values, typed. Pure."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr.record.names import is_device

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord

_DEFAULT_FILE_SYSTEM = "ext4"


class VolumeSettings(NamedTuple):
    """Sizes in bytes, times in microseconds; names as in the fields of the record."""

    disk_size: int | None
    disk_size_relative: int | None
    file_system: str
    partition_uuid: str | None
    luks_uuid: str | None
    file_system_uuid: str | None
    cipher: str
    cipher_mode: str
    key_size: int
    pbkdf: str
    pbkdf_hash: str
    pbkdf_time_usec: int
    pbkdf_memory: int
    pbkdf_threads: int
    pbkdf_iterations: int | None
    sector_size: int | None
    #: Whether the image loses at once what is deleted in it; and whether it does at logout.
    discard: bool
    offline_discard: bool
    mount_options: tuple[str, ...]


def volume_settings(effective: EffectiveRecord) -> VolumeSettings:
    """What counts on this machine."""
    options = cast("str | None", effective.get("luksExtraMountOptions")) or ""
    discard, offline_discard = _discards(effective)
    return VolumeSettings(
        disk_size=cast("int | None", effective.get("diskSize")),
        disk_size_relative=cast("int | None", effective.get("diskSizeRelative")),
        file_system=cast("str | None", effective.get("fileSystemType")) or _DEFAULT_FILE_SYSTEM,
        partition_uuid=_uuid(effective, "partitionUuid"),
        luks_uuid=_uuid(effective, "luksUuid"),
        file_system_uuid=_uuid(effective, "fileSystemUuid"),
        cipher=cast("str", effective.get("luksCipher")),
        cipher_mode=cast("str", effective.get("luksCipherMode")),
        key_size=cast("int", effective.get("luksVolumeKeySize")),
        pbkdf=cast("str", effective.get("luksPbkdfType")),
        pbkdf_hash=cast("str", effective.get("luksPbkdfHashAlgorithm")),
        pbkdf_time_usec=cast("int", effective.get("luksPbkdfTimeCostUSec")),
        pbkdf_memory=cast("int", effective.get("luksPbkdfMemoryCost")),
        pbkdf_threads=cast("int", effective.get("luksPbkdfParallelThreads")),
        pbkdf_iterations=cast("int | None", effective.get("luksPbkdfForceIterations")),
        sector_size=cast("int | None", effective.get("luksSectorSize")),
        discard=discard,
        offline_discard=offline_discard,
        mount_options=tuple(option for option in options.split(",") if option),
    )


def _uuid(effective: EffectiveRecord, name: str) -> str | None:
    """As programs write one, however the record does."""
    found = cast("str | None", effective.get(name))
    return None if found is None else str(uuid.UUID(found))


def _discards(effective: EffectiveRecord) -> tuple[bool, bool]:
    """While the home is in use and after it; what is not said, systemd-homed decides like this.

    Flash wants to know what it need not keep; but the room of a file that is in use may be gone
    when it is needed again.
    """
    on_device = is_device(effective.image_path or "")
    said = cast("bool | None", effective.get("luksDiscard"))
    discard = on_device if said is None else said
    offline = cast("bool | None", effective.get("luksOfflineDiscard"))
    return discard, (discard if on_device else True) if offline is None else offline
