"""The partitions of an image: which of them holds the home, and how it becomes a device."""

from __future__ import annotations

import os
import stat
import uuid
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import UnrecognizedHomeFormat
from homemgr.kernel import loop
from homemgr.volume import gpt
from homemgr.volume.probe import USER_HOME
from homemgr.volume.reading import reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.record.volume_settings import VolumeSettings


class Part(NamedTuple):
    """Where in the image the home is, in bytes; and its partition, if there is a table."""

    offset: int
    size: int
    guid: str | None


def size_of(image: Fd) -> int:
    """Bytes of an image, or of a device."""
    return os.lseek(image.fileno(), 0, os.SEEK_END)


def partitions(image: Fd, path: str) -> list[gpt.Partition]:
    """What the table of an image says. Raises UnrecognizedHomeFormat."""
    size = size_of(image)
    try:
        return gpt.partitions(reader(image.fileno(), 0, size), size)
    except ValueError as error:
        raise UnrecognizedHomeFormat(f"{path} is no image of a home: {error}.") from error


def home_part(
    every: Sequence[gpt.Partition], path: str, settings: VolumeSettings, label: str
) -> Part:
    """The one partition for the home of ``label``. Raises UnrecognizedHomeFormat."""
    named = [p for p in every if p.type_guid == USER_HOME and p.name == label]
    expected = settings.partition_uuid
    found = [p for p in named if expected in (None, p.guid)]
    if named and not found:
        raise UnrecognizedHomeFormat(
            f"The partition of {path} is not the one its user had here: its UUID is"
            f" {', '.join(p.guid for p in named)}, expected {expected}. If that was changed on"
            f" purpose, `homemgr adopt {path}` takes it as it is now."
        )
    if len(found) != 1:
        raise UnrecognizedHomeFormat(
            f"{path} has {len(found)} partitions that hold the home of {label}; expected one."
        )
    return Part(found[0].start, found[0].size, found[0].guid)


def attach(image: Fd, part: Part, sector: int = 0) -> loop.Loop:
    """The part as a device, which goes by itself with its last user."""
    # What is written to a device is kept in memory once.
    is_device = stat.S_ISBLK(os.fstat(image.fileno()).st_mode)
    return loop.attach(
        image.fileno(),
        offset=part.offset,
        size_limit=part.size,
        block_size=sector,
        direct_io=is_device,
    )


def divide(
    image: Fd,
    size: int,
    settings: VolumeSettings,
    label: str,
    first: Sequence[gpt.Partition] = (),
    *,
    sector: int = 512,
    at_most: int | None = None,
) -> Part:
    """Write a new table: partitions ``first``, and one for the home with the rest, or ``at_most``.

    It counts in sectors of the file or device, whatever the home has.
    """
    after = max((p.start + p.size for p in first), default=gpt.FIRST_OFFSET)
    start, length = gpt.last_partition(size, after, sector)
    length = min(length, at_most or length)
    guid = settings.partition_uuid or str(uuid.uuid4())
    home = gpt.Partition(USER_HOME, guid, start, length, label)
    for offset, data in gpt.table(size, str(uuid.uuid4()), (*first, home), sector).items():
        os.pwrite(image.fileno(), data, offset)
    return Part(start, length, guid)
