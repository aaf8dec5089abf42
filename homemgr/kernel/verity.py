"""fs-verity: the digest the kernel checks a file against while it is read.

See the kernel's Documentation/filesystems/fsverity.rst. Such a file cannot be changed.
"""

from __future__ import annotations

import errno
import fcntl
import struct

_FS_IOC_MEASURE_VERITY = 0xC0046686

#: struct fsverity_digest: algorithm, size, then the digest.
_HEAD = "=HH"
_LARGEST_DIGEST = 64
#: By their numbers in the kernel.
ALGORITHMS = {1: "sha256", 2: "sha512"}

#: What is answered where the file, its file system or the kernel has no fs-verity.
_NONE = (errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)


def measure(fd: int) -> str:
    """The digest of an fs-verity file as "algorithm:hex"; empty if the file is none."""
    area = bytearray(struct.pack(_HEAD, 0, _LARGEST_DIGEST) + bytes(_LARGEST_DIGEST))
    try:
        fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, area)
    except OSError as error:
        if error.errno in _NONE:
            return ""
        raise
    algorithm, size = struct.unpack_from(_HEAD, area)
    return f"{ALGORITHMS.get(algorithm, algorithm)}:{area[4 : 4 + size].hex()}"
