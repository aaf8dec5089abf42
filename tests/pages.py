"""What of a file is in memory: the page cache, see mincore(2)."""

from __future__ import annotations

import ctypes
import mmap


def is_resident(fd: int, size: int) -> bool:
    """Whether every page of the file is in memory."""
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as area:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(area)
        address = ctypes.c_void_p(ctypes.addressof(start))
        assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(size), pages) == 0
        # The area cannot be unmapped while something points into it.
        del start
    return all(page & 1 for page in pages)
