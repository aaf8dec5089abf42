"""A mount that kernels before 6.15 need attached before a part of it can be mounted elsewhere.

There it is put where only root gets, for as long as the home is being opened.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.kernel.mounts import (
    MNT_DETACH,
    MOVE_MOUNT_F_EMPTY_PATH,
    OPEN_TREE_CLONE,
    UMOUNT_NOFOLLOW,
    move_mount,
    open_tree,
    umount2,
)
from homemgr.kernel.syscall import AT_EMPTY_PATH, AT_FDCWD

if TYPE_CHECKING:
    from homemgr.files import Fd

_PLACE = "/run/homemgr/volumes"


def make_cloneable(mount: Fd, name: str) -> None:
    """See to it that parts of the detached ``mount`` can be mounted; undone by `take_away`."""
    try:
        open_tree(mount.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE).close()
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        attach(mount, name)


def attach(mount: Fd, name: str) -> None:
    """Put ``mount`` where only root gets."""
    os.makedirs(_PLACE, 0o700, exist_ok=True)
    os.chmod(_PLACE, 0o700)
    path = os.path.join(_PLACE, name)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    move_mount(mount.fileno(), "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)


def take_away(name: str) -> None:
    """Remove all that is there under this name; what was mounted of it stays.

    Whoever has the home alone does it before he opens it too: a worker that was killed has left
    its mount, and with that the device and the image are in use for ever.
    """
    path = os.path.join(_PLACE, name)
    with suppress(OSError):
        # EINVAL ends it: nothing is mounted there any more. Several killed workers leave several.
        while True:
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    with suppress(OSError):
        os.rmdir(path)
