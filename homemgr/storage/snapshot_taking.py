"""How a snapshot is taken: in the way that the file system has, and what it would cost.

Found by trying, never by the name of a file system. A subvolume gives one moment at once;
elsewhere each file is as of one moment of its own.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import HomeAbsent, NoDiskSpace, NotSupported
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import btrfs, reflink
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.record.snapshots import COPIED, SHARED, SUBVOLUME
from homemgr.storage import snapshot_entry, tree_copy
from homemgr.storage.directory import make_directory
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.paths import location
from homemgr.storage.snapshot import take_whole
from homemgr.storage.subvolume import make_subvolume

if TYPE_CHECKING:
    from collections.abc import Callable

#: Of a file system, the share that full copies leave free.
_RESERVE = 20
#: Less than this share being free, nothing is kept that nobody asked for.
_SPARE = 20
#: FS_NOCOW_FL, see ioctl_iflags(2).
_NOCOW = 0x00800000


class Cost(NamedTuple):
    """What a full copy takes, and what there is, in bytes."""

    needed: int
    free: int


def way_of(home: Fd, shelf: Fd) -> str:
    """How a snapshot of the tree ``home`` is taken, or one that is a snapshot is copied later.

    COPIED if it would share nothing.
    """
    if _is_whole(home):
        return SUBVOLUME
    return SHARED if tree_copy.can_share(shelf) else COPIED


def _is_whole(tree: Fd) -> bool:
    """Whether it is a subvolume of which a snapshot has everything.

    What a snapshot shows of others in it are empty directories.
    """
    if btrfs.is_subvolume(tree.fileno()):
        with suppress(OSError):
            return not btrfs.has_subvolumes(tree.fileno())
    return False


def require_room(home: Fd, shelf: Fd, *, is_wanted: bool) -> None:
    """Raise unless a full copy is wanted and fits: NotSupported, NoDiskSpace; both say the cost."""
    cost = Cost(tree_copy.full_size(home), free_bytes(shelf))
    where = location(shelf.fileno())
    what = f"a snapshot is a full copy of {cost.needed} bytes, and {cost.free} are free"
    if not is_wanted:
        raise NotSupported(
            f"The file system of {where} cannot share blocks between files: {what}."
            " Ask for that with --full-copy."
        )
    if cost.needed > cost.free - _size(shelf) // _RESERVE:
        raise NoDiskSpace(f"In {where} {what}; a twentieth of the file system is left free.")


def has_spare_room(shelf: Fd) -> bool:
    """Whether there is room for what nobody asked for."""
    return free_bytes(shelf) > _size(shelf) // _SPARE


def free_bytes(directory: Fd) -> int:
    """What is free on the file system of ``directory``."""
    disk = os.fstatvfs(directory.fileno())
    return disk.f_bavail * disk.f_frsize


def _size(directory: Fd) -> int:
    disk = os.fstatvfs(directory.fileno())
    return disk.f_blocks * disk.f_frsize


def take_tree(home: Fd, place: Fd, how: str, tell: Callable[[int], None]) -> str:
    """Put a copy of the tree ``home`` into ``place``, read-only if ``how`` can; gives how it is."""
    if how == SUBVOLUME:
        if take_whole(home, place, snapshot_entry.HOME):
            return SUBVOLUME
        # A subvolume was made in it just now: copy what a snapshot would leave out.
        btrfs.destroy_subvolume(place.fileno(), snapshot_entry.HOME)
        how = SHARED
    new_tree(home, place, snapshot_entry.HOME, tell)
    return how


def new_tree(
    source: Fd,
    parent: Fd,
    name: str,
    tell: Callable[[int], None],
    *,
    make: Callable[[Fd, str], None] = make_directory,
) -> None:
    """Make the directory ``name`` in ``parent`` a copy of ``source``, which stays as it is."""
    make(parent, name)
    with Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno()) as top:
        os.fchown(top.fileno(), NOBODY, NOBODY)
        tree_copy.copy_tree(source, top, tell)


def writable_tree(
    source: Fd, parent: Fd, name: str, tell: Callable[[int], None], *, as_subvolume: bool
) -> None:
    """Make ``name`` in ``parent`` what a user can go on with: like the snapshot ``source``.

    Only a subvolume can take the place of a subvolume, and a directory that of a directory.
    """
    if as_subvolume and _is_whole(source):
        btrfs.create_snapshot(source.fileno(), parent.fileno(), name, is_writable=True)
        return
    make = make_subvolume if as_subvolume else make_directory
    new_tree(source, parent, name, tell, make=make)


def require_shared_image(parent: Fd, image: os.stat_result) -> None:
    """Raise NotSupported unless an image in ``parent`` can be copied by sharing its blocks."""
    if not stat.S_ISREG(image.st_mode):
        raise NotSupported("The home is no file or directory, but a device: it has no snapshots.")
    if not tree_copy.can_share(parent):
        raise NotSupported(
            f"The file system of {location(parent.fileno())} cannot share the blocks of an image;"
            " xfs and btrfs can. A full copy is made with `cp` while its user is logged out."
        )


def clone_image(image: Fd, parent: Fd, name: str) -> None:
    """Make the new file ``name`` in ``parent`` share all blocks of ``image``; durable."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with Fd.open(name, flags, 0o600, dir_fd=parent.fileno()) as copy:
        # Without copy on write, as such images are on btrfs, only files of that kind share.
        _like(image, copy)
        reflink.clone(image.fileno(), copy.fileno())
        os.fsync(copy.fileno())


def _like(image: Fd, copy: Fd) -> None:
    with suppress(OSError):
        wanted = get_flags(image.fileno()) & _NOCOW
        set_flags(copy.fileno(), get_flags(copy.fileno()) | wanted)


def look_at(parent: Fd, file_name: str) -> os.stat_result:
    """What lies in the place of a home; raises HomeAbsent."""
    try:
        return os.stat(file_name, dir_fd=parent.fileno(), follow_symlinks=False)
    except FileNotFoundError as error:
        where = os.path.join(location(parent.fileno()), file_name)
        raise HomeAbsent(f"There is no home area at {where}.") from error
