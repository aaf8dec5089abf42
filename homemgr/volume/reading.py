"""Reading a part of an open file or device, as if there were nothing else in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    #: ``read(offset, length)``; gives less than ``length`` bytes at the end.
    Reader = Callable[[int, int], bytes]


def reader(fd: int, start: int, size: int) -> Reader:
    """Reads a part of an open file: less than asked for at its end, and nothing beyond."""

    def read(offset: int, length: int) -> bytes:
        # Numbers in a damaged table may point anywhere.
        length = min(length, size - offset)
        return os.pread(fd, length, start + offset) if length > 0 else b""

    return read
