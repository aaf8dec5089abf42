"""The encrypted part of the image file of a `luks` home.

Layout as systemd-homed 262 writes it; read is also a volume without partition table. Unlocks
nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import BadHomeSize, NotSupported
from homemgr.storage import block_device, image_file, image_parts
from homemgr.storage.image_parts import Part
from homemgr.volume.luks_header import MAGIC

if TYPE_CHECKING:
    from contextlib import ExitStack

    from homemgr.files import Fd
    from homemgr.record.volume_settings import VolumeSettings

_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)


def find_part(image: Fd, path: str, settings: VolumeSettings, label: str) -> Part:
    """The encrypted part of an image: the whole, or its one partition for homes.

    Raises UnrecognizedHomeFormat, which says what is there instead.
    """
    if os.pread(image.fileno(), len(MAGIC), 0) == MAGIC:
        return Part(0, image_parts.size_of(image), None)
    every = image_parts.partitions(image, path)
    return image_parts.home_part(every, path, settings, label)


class NewImage(NamedTuple):
    """An image that is being made under a name that says so."""

    fd: Fd
    part: Part
    sector: int


def sector_size(settings: VolumeSettings) -> int:
    """Bytes of a sector of the volume; InvalidArgs is the rule's business, this is not."""
    size = settings.sector_size or 512
    if size not in _SECTOR_SIZES:
        raise NotSupported(f"luksSectorSize: {size} is none of 512, 1024, 2048 and 4096.")
    return size


def check_device(device: Fd, path: str, settings: VolumeSettings) -> int:
    """Bytes that a home on an empty device may have; nothing is written.

    Raises BadHomeSize, and NotSupported as `sector_size` does.
    """
    sector_size(settings)
    has = image_parts.size_of(device)
    wanted = image_file.wanted_size(settings, has) or has
    image_file.check_size(wanted)
    if wanted > has:
        raise BadHomeSize(f"{path} has {has} bytes: too few for a home of {wanted}.")
    return wanted


def make_on_device(device: Fd, wanted: int, settings: VolumeSettings, label: str) -> NewImage:
    """A device that was checked, with nothing but a partition of ``wanted`` bytes at most.

    A partition is used as it is.
    """
    has = image_parts.size_of(device)
    if block_device.is_partition(device):
        part = Part(0, has, None)
    else:
        sector = block_device.sector_size(device)
        part = image_parts.divide(device, has, settings, label, sector=sector, at_most=wanted)
    return NewImage(device, part, sector_size(settings))


def make(
    parent: Fd, file_name: str, settings: VolumeSettings, label: str, undo: ExitStack
) -> tuple[str, NewImage]:
    """An image with nothing but its partition; ``undo`` deletes it. Its name, and it."""
    name, fd, size = image_file.make(parent, file_name, settings, undo)
    part = image_parts.divide(fd, size, settings, label)
    return name, NewImage(fd, part, sector_size(settings))
