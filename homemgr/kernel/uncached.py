"""Write through the page cache without staying in it: RWF_DONTCACHE of pwritev2(2).

Linux has it since 6.14; ext4 and xfs took it up later, btrfs of 6.18 has not yet.
"""

from __future__ import annotations

import os

#: <linux/fs.h>
_RWF_DONTCACHE = 0x80


def pwrite_uncached(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write ``data``, have it written out from now on, and the cache drop it then; its count.

    EOPNOTSUPP if the kernel or the file system cannot.
    """
    return os.pwritev(fd, [data], offset, _RWF_DONTCACHE)
