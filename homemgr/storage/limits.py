"""Homes that are directories, held to a size: by btrfs as subvolumes, else as projects.

The limit is kept by the file system, not by anything beside it, and holds also for what is
written while nobody looks.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from homemgr.errors import HomeError, NotSupported
from homemgr.kernel import qgroup, quota
from homemgr.kernel.btrfs import is_subvolume
from homemgr.kernel.statfs import BTRFS_SUPER_MAGIC, file_system_type
from homemgr.storage import projects, sizes
from homemgr.storage.paths import location, open_safe_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.storage.top import Top

log = logging.getLogger(__name__)

#: Of diskSizeRelative.
_SCALE: Final = 1 << 32
#: Beside what a home takes: its record is written anew, and the user logs in.
_SPARE: Final = 1 << 20


class Taken(NamedTuple):
    """What a home takes and may take, in bytes; no limit is 0."""

    limit: int
    usage: int


def taken(top: Fd) -> Taken | None:
    """What the file system has counted for a home; None if it counts nothing for it."""
    found: qgroup.Usage | quota.Usage | None
    if file_system_type(top.fileno()) == BTRFS_SUPER_MAGIC:
        found = qgroup.usage(top.fileno()) if is_subvolume(top.fileno()) else None
    else:
        found = projects.usage(top)
    return None if found is None else Taken(found.limit, found.usage)


def resize(top: Top, wanted: int) -> int:
    """Hold a home to a size, in bytes or as `sizes` has it; gives what it came to.

    Raises BadHomeSize if it takes more already; NotSupported where nothing can hold it.
    """
    with open_safe_parent(top.image_path) as parent:
        set_limit = _prepared(top.fd, parent)
        # Not that of the home: there the disk is as large as the limit (statfs(2) of ext4, xfs).
        disk = os.fstatvfs(parent.fileno())
    found = taken(top.fd)
    usage = found.usage if found else 0
    what = f"{usage} bytes are in use, and its file system has {disk.f_blocks * disk.f_frsize}"
    size = sizes.chosen(wanted, usage + _SPARE, disk.f_blocks * disk.f_frsize, what)
    set_limit(size)
    return size


def carry_over(old: Fd, new: Fd, parent: Fd) -> None:
    """Hold the files that take the place of a home in ``parent`` to the size of those ``old``."""
    found = taken(old)
    if found is not None and found.limit:
        _prepared(new, parent)(found.limit)


def _prepared(top: Fd, parent: Fd) -> Callable[[int], None]:
    """What sets the limit of a home, of which everything is counted from now on."""
    if file_system_type(top.fileno()) == BTRFS_SUPER_MAGIC:
        _require_subvolume(top)
        _count(top)
        return lambda size: qgroup.set_limit(top.fileno(), size)
    projects.require_quota(top)
    number = projects.assign(top, parent)
    return lambda size: quota.set_limit(top.fileno(), number, size)


def _require_subvolume(top: Fd) -> None:
    if not is_subvolume(top.fileno()):
        raise NotSupported(
            f"{location(top.fileno())} cannot be held to a size: btrfs counts subvolumes, and this"
            " is a plain directory; a home of storage subvolume can."
        )


def _count(top: Fd) -> None:
    try:
        qgroup.enable(top.fileno())
    except OSError as error:
        # Enabled already, in another way of counting for instance.
        if error.errno not in (errno.EINVAL, errno.EEXIST):
            raise


# --- new homes ------------------------------------------------------------------------------


def preparing(effective: EffectiveRecord, parent: Fd) -> Callable[[Fd], None]:
    """What holds a new home, still empty, to the size in its record, if that has one.

    Where nothing can hold it the home is made as large as it likes, as systemd-homed does it.
    """

    def prepare(top: Fd) -> None:
        try:
            _limit_new(effective, top, parent)
        except (HomeError, OSError) as error:
            reason = error.message if isinstance(error, HomeError) else str(error)
            log.warning(
                "The size in the record of home area %s has no effect: %s", effective.name, reason
            )

    return prepare


def _limit_new(effective: EffectiveRecord, top: Fd, parent: Fd) -> None:
    size = _size_of(effective, top)
    on_btrfs = file_system_type(top.fileno()) == BTRFS_SUPER_MAGIC
    if on_btrfs and size is not None:
        _require_subvolume(top)
        _count(top)
        qgroup.set_limit(top.fileno(), size)
    elif on_btrfs:
        return
    elif size is not None:
        projects.require_quota(top)
        quota.set_limit(top.fileno(), projects.assign_new(top, parent), size)
    elif quota.is_enforced(top.fileno()):
        # Counted from the start, what it takes is known later without looking at every file.
        projects.assign_new(top, parent)


def _size_of(effective: EffectiveRecord, top: Fd) -> int | None:
    size = effective.disk_size
    share = cast("int | None", effective.get("diskSizeRelative"))
    if size is None and share is not None:
        disk = os.fstatvfs(top.fileno())
        size = max(sizes.LEAST, share * disk.f_bavail * disk.f_frsize // _SCALE)
    return None if size is None else sizes.rounded(size)
