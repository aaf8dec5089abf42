"""The top directory of a home on disk, and the detached mount that shows it as the user's.

What all storages share once they have opened their home. Mounts nothing anywhere:
the mount made here is visible to nobody until somebody publishes it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from homemgr.errors import HostileHome, NotSupported
from homemgr.kernel.mounts import (
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    mount_setattr,
    open_tree,
)
from homemgr.kernel.syscall import AT_EMPTY_PATH
from homemgr.kernel.userns import create_userns
from homemgr.storage.idmapping import NOBODY, strict
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from types import TracebackType

    from homemgr.files import Fd
    from homemgr.storage.idmapping import IdMapping

#: What a file system or kernel without idmapped mounts answers; EPERM if it is one already.
_NO_IDMAP = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


class Top:
    """The open top directory of a home, and which ids its files have on disk.

    Owns its descriptor until the end of its ``with`` block or `close`.
    """

    def __init__(self, fd: Fd, image_path: str) -> None:
        """Take over ``fd``; `HostileHome` (and ``fd`` closed) if root owns it."""
        found = os.fstat(fd.fileno())
        if found.st_uid == 0 or found.st_gid == 0:
            fd.close()
            # Mapping root to the user would hand over every root-owned file inside.
            raise HostileHome(
                f"{image_path} belongs to {found.st_uid}:{found.st_gid}; expected an owner and a"
                " group other than root, such as 65534."
            )
        self.fd = fd
        self.image_path = image_path
        self.disk_uid = found.st_uid
        self.disk_gid = found.st_gid

    def close(self) -> None:
        """Let go of the directory."""
        self.fd.close()

    def __enter__(self) -> Top:
        """Own the directory until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go, whatever happened."""
        self.close()


def restrictions(*, nosuid: bool, nodev: bool, noexec: bool) -> int:
    """Attributes of a mount, see mount_setattr(2)."""
    attributes = MOUNT_ATTR_NOSUID if nosuid else 0
    attributes |= MOUNT_ATTR_NODEV if nodev else 0
    return attributes | (MOUNT_ATTR_NOEXEC if noexec else 0)


def attach(
    top: Top,
    mapping: IdMapping,
    *,
    nosuid: bool,
    nodev: bool,
    noexec: bool,
    is_read_only: bool = False,
) -> Fd:
    """A detached mount of the home that shows its ids as ``mapping`` says.

    Restrictions that the mount below already has stay in force.
    """
    attributes = restrictions(nosuid=nosuid, nodev=nodev, noexec=noexec)
    attributes |= MOUNT_ATTR_RDONLY if is_read_only else 0
    return _mapped(top.fd, mapping, attributes)


def require_mapping(directory: Fd) -> None:
    """Raise NotSupported if homes below ``directory`` could not be shown as their users'."""
    _mapped(
        directory, strict(NOBODY, NOBODY - 1), restrictions(nosuid=True, nodev=True, noexec=True)
    ).close()


def _mapped(directory: Fd, mapping: IdMapping, attributes: int) -> Fd:
    # Without AT_RECURSIVE: what is mounted inside the stored home is none of the user's.
    mount = open_tree(directory.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
    try:
        with create_userns(mapping.uid_map, mapping.gid_map) as userns:
            mount_setattr(
                mount.fileno(),
                "",
                AT_EMPTY_PATH,
                attr_set=MOUNT_ATTR_IDMAP | attributes,
                # The clone would otherwise share mounts with the place it was cloned from.
                propagation=MS_PRIVATE,
                userns_fd=userns.fileno(),
            )
    except OSError as error:
        # Never attached, so closing it is all there is to undo.
        mount.close()
        if error.errno in _NO_IDMAP:
            raise NotSupported(
                f"The file system of {location(directory.fileno())} cannot show files under other"
                f" ids here ({os.strerror(error.errno)}); ext4, xfs and btrfs can, also in an image"
                " that lies there (--storage=luks or image)."
            ) from error
        raise
    return mount
