"""Open files in a directory that a hostile user controls.

What is found is looked at before it is opened and judged by its descriptor, so that
links, devices, fifos, mounts and races lead nowhere. See openat2(2).
"""

from __future__ import annotations

import os
import stat

from homemgr.errors import HostileHome
from homemgr.files import Fd
from homemgr.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from homemgr.storage.paths import location

#: How a path inside a home is resolved: no link, no mount, not out of it.
RESOLVE_GUARDED = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def open_guarded(directory: Fd, name: str, owner: int) -> Fd:
    """Open the regular file ``name`` for reading after everything about it was found in order.

    First without opening in earnest: opening a device may already do something.
    """
    try:
        seen = openat2(directory.fileno(), name, os.O_PATH | os.O_NOFOLLOW, RESOLVE_GUARDED)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise hostile(directory, name, "a file of this home", error) from error
    with seen:
        found = os.fstat(seen.fileno())
        where = os.path.join(location(directory.fileno()), name)
        if not stat.S_ISREG(found.st_mode):
            raise HostileHome(f"{where} must be a regular file.")
        # A second name may be in a directory where its content is not the owner's to choose.
        if found.st_nlink != 1:
            raise HostileHome(f"{where} has {found.st_nlink} links; expected exactly one.")
        if found.st_uid != owner:
            raise HostileHome(f"{where} belongs to uid {found.st_uid}; expected {owner}.")
        # The very inode that was judged, whatever has the name by now.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return Fd.open(f"/proc/self/fd/{seen.fileno()}", flags)


def hostile(directory: Fd, name: str, expected: str, error: OSError) -> HostileHome:
    """What to answer if opening ``name`` in a home failed in a way only its owner can cause."""
    where = os.path.join(location(directory.fileno()), name)
    text = os.strerror(error.errno) if error.errno else str(error)
    return HostileHome(f"{where} must be {expected}: {text}.")
