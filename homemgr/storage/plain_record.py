"""The user record in a partition of its own of a plain image: judged before anything is mounted.

Nobody can be kept from writing there who can write to the medium: the record's signature says
whose it is. It is never older than the one in the file system, which is what `Area.write_record`
of such homes sees to.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import InvalidRecord
from homemgr.volume import record_area
from homemgr.volume.gpt import FIRST_OFFSET, Partition
from homemgr.volume.reading import reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd

_NAME: Final = "homemgr-record"
#: What somebody else's image may have in this place is not read further than this (bytes).
_LARGEST: Final = 16 << 20


class RecordArea(NamedTuple):
    """Where in an open image the record is."""

    image: Fd
    offset: int
    size: int

    def read(self) -> bytes | None:
        """The record; None if there is none that is whole."""
        return record_area.read(reader(self.image.fileno(), self.offset, self.size), self.size)

    def write(self, identity: bytes) -> None:
        """Replace the record, durably. Raises InvalidRecord if it is too long."""
        read = reader(self.image.fileno(), self.offset, self.size)
        try:
            offset, data = record_area.replaced(read, self.size, identity)
        except ValueError as error:
            raise InvalidRecord(f".: does not fit beside the home: {error}.") from error
        os.pwrite(self.image.fileno(), data, self.offset + offset)
        os.fdatasync(self.image.fileno())


def new_partition() -> Partition:
    """The first partition of a new image."""
    guid = str(uuid.uuid4())
    return Partition(record_area.RECORD_AREA, guid, FIRST_OFFSET, record_area.AREA_SIZE, _NAME)


def find(image: Fd, every: Sequence[Partition]) -> RecordArea | None:
    """The area for the record among the partitions of an image; None if there is not one."""
    found = [p for p in every if p.type_guid == record_area.RECORD_AREA]
    if len(found) != 1 or found[0].size > _LARGEST:
        return None
    return RecordArea(image, found[0].start, found[0].size)
