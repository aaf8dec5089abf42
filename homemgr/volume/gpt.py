"""The partition table of a disk: UEFI specification, section 5.3.

Pure: reads through a function, and says what is to be written where. Both copies of the
table must be whole and agree, so that an image whose end is missing is not taken for a good one.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.volume.reading import Reader

#: signature, revision, header size, header CRC, reserved, my LBA, alternate LBA, first and
#: last usable LBA, disk GUID, LBA of the entries, their count, size and CRC.
_HEADER = "<8sIIIIQQQQ16sQIII"
_HEADER_SIZE = 92
_CRC_OFFSET = 16
_SIGNATURE = b"EFI PART"
_REVISION = 0x10000
_SECTOR_SIZES = (512, 4096)

#: type, GUID, first and last LBA, attributes, name.
_ENTRY = "<16s16sQQQ72s"
_ENTRY_SIZE = 128
#: Tables are 16 KiB as a rule; nobody needs ever more than that.
_TABLE_LIMIT = 1 << 20

_UNUSED = bytes(16)

#: Where the first partition begins, as everybody has it.
FIRST_OFFSET = 1 << 20

_ENTRY_COUNT = 128
_ENTRIES_BYTES = _ENTRY_COUNT * _ENTRY_SIZE

#: A boot record that says: all of this disk is a GPT (section 5.2.3).
_PROTECTIVE = struct.Struct("<446x4B4BII48xH")
#: Of any boot record: a program and a number of the disk, four entries, what ends it.
_PROGRAM_BYTES, _ENTRIES_END, _RECORD_BYTES = 446, 510, 512
_MBR_ENTRY, _MBR_TYPE, _GPT_TYPE = 16, 4, 0xEE


class Partition(NamedTuple):
    """One partition; ``start`` and ``size`` in bytes."""

    type_guid: str
    guid: str
    start: int
    size: int
    name: str


class _Header(NamedTuple):
    sector: int
    my_lba: int
    alternate_lba: int
    first_lba: int
    last_lba: int
    disk_guid: bytes
    entries_lba: int
    entry_count: int
    entry_size: int
    entries_crc: int

    @property
    def content(self) -> tuple[object, ...]:
        """What both copies have in common."""
        return (*self[3:6], *self[7:])


def partitions(read: Reader, size: int) -> list[Partition]:
    """The partitions of a disk of ``size`` bytes; ValueError says what is wrong with it.

    ``read(offset, length)`` gives less than ``length`` bytes at the end.
    """
    primary = _primary(read)
    backup = _header(read, primary.sector, primary.alternate_lba, "backup")
    if backup.alternate_lba != primary.my_lba or backup.content != primary.content:
        raise ValueError("the two copies of its partition table differ")
    table = _table(read, primary, "first")
    if _table(read, backup, "backup") != table:
        raise ValueError("the two copies of its partition table differ")
    found = [p for p in _entries(table, primary) if p is not None]
    _check_places(found, size)
    return found


def _primary(read: Reader) -> _Header:
    for sector in _SECTOR_SIZES:
        if read(sector, len(_SIGNATURE)) == _SIGNATURE:
            return _header(read, sector, 1, "first")
    raise ValueError("it has no partition table")


def _header(read: Reader, sector: int, lba: int, which: str) -> _Header:
    raw = read(lba * sector, sector)
    if len(raw) < sector or raw[: len(_SIGNATURE)] != _SIGNATURE:
        raise ValueError(f"the {which} copy of its partition table is missing")
    _, revision, size, crc, _, *rest = struct.unpack_from(_HEADER, raw)
    if revision != _REVISION or not _HEADER_SIZE <= size <= sector:
        raise ValueError(f"the {which} copy of its partition table is of an unknown kind")
    # The sum is made with zeros in its own place.
    if zlib.crc32(raw[:_CRC_OFFSET] + bytes(4) + raw[_CRC_OFFSET + 4 : size]) != crc:
        raise ValueError(f"the {which} copy of its partition table is damaged")
    header = _Header(sector, *rest)
    if header.my_lba != lba:
        raise ValueError(f"the {which} copy of its partition table is not where it belongs")
    return header


def _table(read: Reader, header: _Header, which: str) -> bytes:
    entry, length = header.entry_size, header.entry_size * header.entry_count
    # The specification: 128 times a power of two.
    if entry < _ENTRY_SIZE or entry & (entry - 1) or length > _TABLE_LIMIT:
        raise ValueError(f"the {which} copy of its partition table has an impossible size")
    table = read(header.entries_lba * header.sector, length)
    if len(table) < length or zlib.crc32(table) != header.entries_crc:
        raise ValueError(f"the entries in the {which} copy of its partition table are damaged")
    return table


def _entries(table: bytes, header: _Header) -> list[Partition | None]:
    return [
        _entry(table, offset, header)
        for offset in range(0, header.entry_size * header.entry_count, header.entry_size)
    ]


def _entry(table: bytes, offset: int, header: _Header) -> Partition | None:
    kind, guid, first, last, _, name = struct.unpack_from(_ENTRY, table, offset)
    if kind == _UNUSED:
        return None
    text = name.decode("utf-16-le", "replace").partition("\0")[0]
    if not header.first_lba <= first <= last <= header.last_lba:
        raise ValueError(f"its partition {text!r} lies outside the space for partitions")
    return Partition(
        str(uuid.UUID(bytes_le=kind)),
        str(uuid.UUID(bytes_le=guid)),
        first * header.sector,
        (last - first + 1) * header.sector,
        text,
    )


def _check_places(found: list[Partition], size: int) -> None:
    end = 0
    for partition in sorted(found, key=lambda p: p.start):
        if partition.start < end:
            raise ValueError(f"its partition {partition.name!r} overlaps another one")
        end = partition.start + partition.size
        if end > size:
            raise ValueError(f"its partition {partition.name!r} ends after the end of the image")


def disk_of(read: Reader) -> tuple[str, int]:
    """What the table calls its disk, and bytes of a sector; ValueError if there is none."""
    header = _primary(read)
    return str(uuid.UUID(bytes_le=header.disk_guid)), header.sector


def is_reproducible(read: Reader, size: int) -> bool:
    """Whether `table` says all that the present one says, given its partitions by their places.

    It knows no attributes, and numbers partitions from 1, one after another. ValueError if there
    is no table.
    """
    header = _primary(read)
    places = (2, _ENTRY_COUNT, _ENTRY_SIZE)
    if (header.entries_lba, header.entry_count, header.entry_size) != places:
        return False
    in_order = sorted(partitions(read, size), key=lambda p: p.start)
    return _table(read, header, "first") == _packed(in_order, header.sector)


def last_partition(size: int, start: int = FIRST_OFFSET, sector: int = 512) -> tuple[int, int]:
    """Start and size in bytes of a partition from ``start`` to the end of a disk of ``size``."""
    behind = size - sector - _ENTRIES_BYTES
    end = behind // FIRST_OFFSET * FIRST_OFFSET
    if end <= start:
        raise ValueError(f"a disk of {size} bytes has no room for a partition")
    return start, end - start


def table(
    size: int, disk_guid: str, partitions: Sequence[Partition], sector: int = 512
) -> dict[int, bytes]:
    """What to write where, so that a disk of ``size`` bytes has these partitions.

    What is at 0 says for programs of old that all of it is in use.
    """
    entries = _packed(partitions, sector)
    entry_sectors = _ENTRIES_BYTES // sector
    last_lba = size // sector - 1
    usable = (2 + entry_sectors, last_lba - entry_sectors - 1)

    def header(lba: int, alternate: int, entries_lba: int) -> bytes:
        guid = uuid.UUID(disk_guid).bytes_le
        places = (lba, alternate, *usable, guid, entries_lba, _ENTRY_COUNT, _ENTRY_SIZE)
        head = (_SIGNATURE, _REVISION, _HEADER_SIZE)
        raw = struct.pack(_HEADER, *head, 0, 0, *places, zlib.crc32(entries))
        crc = zlib.crc32(raw)
        return struct.pack(_HEADER, *head, crc, 0, *places, zlib.crc32(entries)).ljust(
            sector, b"\0"
        )

    protected = min(last_lba, 0xFFFFFFFF)
    # No flag; from cylinder 0, head 0, sector 2 to the largest there is; type 0xEE.
    record = _PROTECTIVE.pack(0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, protected, 0xAA55)
    backup_entries = last_lba - entry_sectors
    return {
        0: record.ljust(sector, b"\0"),
        sector: header(1, last_lba, 2) + entries,
        backup_entries * sector: entries + header(last_lba, 1, backup_entries),
    }


def boot_record(now: bytes, new: bytes) -> bytes:
    """What to write at 0 where ``now`` is, for a table that has ``new`` there.

    A program to boot stays, and a record that names partitions of its own stays as it is.
    """
    if now[_ENTRIES_END:_RECORD_BYTES] != new[_ENTRIES_END:_RECORD_BYTES]:
        return new
    entries = now[_PROGRAM_BYTES:_ENTRIES_END]
    if entries[_MBR_TYPE] != _GPT_TYPE or any(entries[_MBR_ENTRY:]):
        return now
    return now[:_PROGRAM_BYTES] + new[_PROGRAM_BYTES:_RECORD_BYTES] + now[_RECORD_BYTES:]


def _packed(partitions: Sequence[Partition], sector: int) -> bytes:
    packed = b"".join(_packed_entry(partition, sector) for partition in partitions)
    return packed.ljust(_ENTRIES_BYTES, b"\0")


def _packed_entry(partition: Partition, sector: int) -> bytes:
    first = partition.start // sector
    return struct.pack(
        _ENTRY,
        uuid.UUID(partition.type_guid).bytes_le,
        uuid.UUID(partition.guid).bytes_le,
        first,
        first + partition.size // sector - 1,
        0,
        # A name that is too long is cut off between two characters.
        partition.name.encode("utf-16-le")[:72],
    )
