"""Disk images with a partition table, written from the specification for the tests."""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import NamedTuple

ROOT_X86_64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
ROOT_ARM64 = "b921b045-1df0-41c3-af44-4c6f280d3fae"
USR_X86_64 = "8484680c-9521-48c6-9c11-b0720656f69e"
ROOT_VERITY_X86_64 = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
ROOT_SIGNATURE_X86_64 = "41092b05-9fc8-4523-994f-2def0408b176"
USR_VERITY_X86_64 = "77ff5f63-e7b6-4633-acf4-1565b864c0e6"
USR_SIGNATURE_X86_64 = "e7bb33fb-06cf-4e81-8273-e543b413e2e2"
GENERIC = "0fc63daf-8483-4772-8e79-3d69d8477de4"

COUNT, ENTRY_SIZE = 128, 128
DISK = uuid.UUID("11111111-2222-3333-4444-555555555555").bytes_le


class Part(NamedTuple):
    """A partition to be written."""

    type_guid: str
    content: bytes
    name: str = "part"
    guid: str = ""


def gpt_image(parts: list[Part], sector: int = 512) -> bytes:
    """A whole disk: protective MBR left empty, table, partitions, backup table."""
    table_sectors = COUNT * ENTRY_SIZE // sector
    first = lba = 2 + table_sectors
    entries, body = b"", b""
    for number, part in enumerate(parts):
        sectors = max(1, -(-len(part.content) // sector))
        entries += struct.pack(
            "<16s16sQQQ72s",
            uuid.UUID(part.type_guid).bytes_le,
            (uuid.UUID(part.guid) if part.guid else uuid.UUID(int=number + 1)).bytes_le,
            lba,
            lba + sectors - 1,
            0,
            part.name.encode("utf-16-le"),
        )
        body += part.content.ljust(sectors * sector, b"\0")
        lba += sectors
    entries = entries.ljust(COUNT * ENTRY_SIZE, b"\0")
    backup_table, backup = lba, lba + table_sectors
    common = (first, lba - 1, zlib.crc32(entries))
    return b"".join(
        (
            bytes(sector),
            header(1, backup, 2, common).ljust(sector, b"\0"),
            entries,
            body,
            entries,
            header(backup, 1, backup_table, common).ljust(sector, b"\0"),
        )
    )


def header(lba: int, other: int, table: int, common: tuple[int, int, int]) -> bytes:
    """One copy of the header."""
    first, last, crc = common

    def raw(own_crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x10000,
            92,
            own_crc,
            0,
            lba,
            other,
            first,
            last,
            DISK,
            table,
            COUNT,
            ENTRY_SIZE,
            crc,
        )

    return raw(zlib.crc32(raw(0)))
