"""What clients may ask of a conversion: JSON objects, checked member by member."""

from __future__ import annotations

from dataclasses import dataclass

from homemgr import errors
from homemgr.daemon.transfer_options import Given
from homemgr.record.fields import MAX_DISK_SIZE, MIN_DISK_SIZE

#: See PATH_MAX in limits.h, which counts the zero at the end.
_LONGEST_PATH = 4095


@dataclass(frozen=True)
class ConvertOptions:
    """Of ConvertHome."""

    #: Empty: as it is.
    storage: str = ""
    #: Path of the new image; empty: beside the old one.
    to: str = ""
    #: Of a new image file, in bytes; None: as the record says.
    disk_size: int | None = None


def to_convert(text: str) -> ConvertOptions:
    """Options of ConvertHome; raises InvalidArgs and BadHomeSize."""
    given = Given(text, "storage", "to", "disk_size")
    to = given.text("to", _LONGEST_PATH)
    if to and not to.startswith("/"):
        raise errors.InvalidArgs(f"options: to is {to!r}, expected an absolute path.")
    size = given.number("disk_size", 1 << 62)
    if size is not None and not MIN_DISK_SIZE <= size <= MAX_DISK_SIZE:
        raise errors.BadHomeSize(
            f"options: disk_size is {size}, expected {MIN_DISK_SIZE} to {MAX_DISK_SIZE} bytes."
        )
    return ConvertOptions(given.text("storage"), to, size)


def to_undo(text: str) -> bool:
    """The only option of UndoConversion, ``force``; raises InvalidArgs."""
    return Given(text, "force").flag("force")
