"""What a record says of the encrypted volume of its home: effective values, typed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

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
    discard: bool
    mount_options: tuple[str, ...]


def volume_settings(effective: EffectiveRecord) -> VolumeSettings:
    """What counts on this machine."""
    options = cast("str | None", effective.get("luksExtraMountOptions")) or ""
    return VolumeSettings(
        disk_size=cast("int | None", effective.get("diskSize")),
        disk_size_relative=cast("int | None", effective.get("diskSizeRelative")),
        file_system=cast("str | None", effective.get("fileSystemType")) or _DEFAULT_FILE_SYSTEM,
        partition_uuid=cast("str | None", effective.get("partitionUuid")),
        luks_uuid=cast("str | None", effective.get("luksUuid")),
        file_system_uuid=cast("str | None", effective.get("fileSystemUuid")),
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
        discard=bool(effective.get("luksDiscard")),
        mount_options=tuple(option for option in options.split(",") if option),
    )
