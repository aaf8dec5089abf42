"""Quota of projects: what the files of one project take, and how much they may.

See quotactl_fd(2), linux/quota.h and linux/dqblk_xfs.h. A project is a number that files carry,
see `kernel.project`; ext4, xfs and f2fs count and limit what all files of one take together.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from homemgr.kernel.syscall import INT, POINTER, UINT, packed, system_call, zeroed

_PROJECTS = 2
_GET, _SET = 0x800007, 0x800008
#: Q_XGETQSTATV, which ext4 answers as well.
_GET_STATE = ord("X") << 8 | 8

#: struct if_dqblk: limits hard and soft of blocks, bytes in use, limits of files, files in use,
#: two times, and which of all that is valid.
_BLOCK = "=8QI4x"
_LIMITS_ARE_VALID = 1
#: Bytes of what limits are counted in.
_UNIT = 1024

#: struct fs_quota_statv: version, flags, and 156 bytes more.
_STATE_BYTES, _STATE = 160, struct.Struct("=bxH")
_STATE_VERSION = 1
_ENFORCED = 1 << 5

#: What file systems and kernels answer that count nothing, or not now.
NONE = (
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ESRCH,
    errno.ENOTTY,
    errno.ENODEV,
    errno.ENOTBLK,
)

_quotactl_fd = system_call("quotactl_fd", 443, INT, UINT, INT, POINTER)


class Usage(NamedTuple):
    """What a project takes; sizes in bytes, no limit is 0."""

    limit: int
    usage: int
    files: int


def is_enforced(fd: int) -> bool:
    """Whether the file system holds projects to their limits, as it is mounted now."""
    area = packed(f"={_STATE_BYTES}B", _STATE_VERSION, *[0] * (_STATE_BYTES - 1))
    try:
        _quotactl_fd(fd, _command(_GET_STATE), 0, area)
    except OSError as error:
        if error.errno not in NONE:
            raise
        return False
    _, flags = _STATE.unpack_from(area.raw)
    return bool(flags & _ENFORCED)


def usage(fd: int, project: int) -> Usage:
    """What ``project`` takes and may take."""
    area = zeroed(struct.calcsize(_BLOCK))
    try:
        _quotactl_fd(fd, _command(_GET), project, area)
    except OSError as error:
        # Of a project without files xfs knows nothing.
        if error.errno != errno.ENOENT:
            raise
        return Usage(0, 0, 0)
    hard, _, used, _, _, files, *_ = struct.unpack(_BLOCK, area.raw)
    return Usage(hard * _UNIT, used, files)


def set_limit(fd: int, project: int, size: int) -> None:
    """Let ``project`` take ``size`` bytes at most."""
    units = size // _UNIT
    area = packed(_BLOCK, units, units, 0, 0, 0, 0, 0, 0, _LIMITS_ARE_VALID)
    _quotactl_fd(fd, _command(_SET), project, area)


def _command(number: int) -> int:
    return number << 8 | _PROJECTS
