"""The project that a file belongs to, see FS_IOC_FSGETXATTR in ioctl_fsgetxattr(2).

A number that means something to quota only. What is made in a directory that inherits gets its
project; nothing of another one can be renamed or linked into it.
"""

from __future__ import annotations

import fcntl
import struct
from typing import NamedTuple

_GET, _SET = 0x801C581F, 0x401C5820
#: struct fsxattr: flags, two numbers, the project, one number, 8 bytes not used.
_LAYOUT = struct.Struct("=5I8s")
_INHERIT = 0x200


class Project(NamedTuple):
    """Its number, 0 for none, and whether what is made in a directory gets it."""

    number: int
    is_inherited: bool


def get_project(fd: int) -> Project:
    """The project of an open file or directory."""
    flags, _, _, number, *_ = _LAYOUT.unpack(fcntl.ioctl(fd, _GET, bytes(_LAYOUT.size)))
    return Project(number, bool(flags & _INHERIT))


def set_project(fd: int, project: Project) -> None:
    """Make it belong to ``project``; only directories inherit."""
    # The kernel sets all of it at once: what is not ours to change goes back as it was.
    flags, extent, extents, _, copied, rest = _LAYOUT.unpack(
        fcntl.ioctl(fd, _GET, bytes(_LAYOUT.size))
    )
    flags = flags | _INHERIT if project.is_inherited else flags & ~_INHERIT
    wanted = _LAYOUT.pack(flags, extent, extents, project.number, copied, rest)
    fcntl.ioctl(fd, _SET, wanted)
