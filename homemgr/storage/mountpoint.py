"""The place where a home is seen while it is active: prepare, publish, take away.

Knows mounts and paths, not what is mounted. Publishing is one step after which
nothing can fail; taking away either succeeds or leaves everything as it was.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import (
    FileNotFound,
    HomeAlreadyActive,
    HomeBusy,
    HomeNotActive,
    PathExists,
    UnsafePath,
)
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.holders import Holder, Target, find_holders, find_loop_devices
from homemgr.kernel.mountinfo import Mount, submounts
from homemgr.kernel.mounts import (
    MNT_DETACH,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    UMOUNT_NOFOLLOW,
    move_mount,
    umount2,
)
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.statx import Place, place
from homemgr.kernel.syscall import AT_FDCWD
from homemgr.storage.paths import open_safe_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Of the empty directory: what is stored by accident while the home is away is root's.
_MODE = 0o700

_NOT_DISCARDED = (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)

#: Pauses between attempts while a mount is busy: references may be on their way out.
_PAUSES_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.065)

#: How long we may look for who holds a mount.
_SEARCH_S = 1.0

#: How many mounts over a home are taken away with it.
_LAYERS = 100

#: How many holders a message names.
_NAMES = 5


def is_active(home_directory: str) -> bool:
    """Whether something is mounted at ``home_directory``."""
    try:
        return place(AT_FDCWD, home_directory).is_mount_root
    except (FileNotFoundError, NotADirectoryError):
        return False


def require_unused(home_directory: str) -> None:
    """`PathExists` unless a new home may be seen there: nothing, or an empty directory of ours."""
    with open_safe_parent(home_directory) as parent:
        try:
            found = os.stat(
                os.path.basename(home_directory), dir_fd=parent.fileno(), follow_symlinks=False
            )
        except FileNotFoundError:
            return
    if is_active(home_directory):
        raise HomeAlreadyActive(f"Something is mounted at {home_directory} already.")
    is_ours = found.st_uid == 0 and found.st_mode == stat.S_IFDIR | _MODE
    if not is_ours or os.listdir(home_directory):
        raise PathExists(f"{home_directory} exists already; it is not a directory of ours.")


def discard(home_directory: str) -> None:
    """Remove the directory where a home was seen, if it is there and empty."""
    # The mount point itself cannot be removed by mistake: rmdir(2) refuses with EBUSY.
    with suppress(FileNotFound), open_safe_parent(home_directory) as parent:
        try:
            os.rmdir(os.path.basename(home_directory), dir_fd=parent.fileno())
        except OSError as error:
            # Somebody else's, in use again, or never made: none of it is in the way.
            if error.errno not in _NOT_DISCARDED:
                raise


def prepare(home_directory: str, *, own_image: Fd | None = None) -> Fd:
    """The empty directory to publish a home at, made if missing, root's and closed to others.

    ``own_image`` is the top of a home that is stored at the very place where it is seen.
    """
    with open_safe_parent(home_directory) as parent:
        name = os.path.basename(home_directory)
        # What is there already is judged below, like what we make.
        with suppress(FileExistsError):
            os.mkdir(name, _MODE, dir_fd=parent.fileno())
        target = _open_target(parent.fileno(), name, home_directory)
    with ExitStack() as undo:
        undo.callback(target.close)
        _put_in_order(target, home_directory, own_image)
        undo.pop_all()
    return target


def _open_target(parent: int, name: str, home_directory: str) -> Fd:
    try:
        target = Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise UnsafePath(f"{home_directory} is not a directory.") from error
    if place(target.fileno()).is_mount_root:
        target.close()
        raise HomeAlreadyActive(f"Something is mounted at {home_directory} already.")
    return target


def _put_in_order(target: Fd, home_directory: str, own_image: Fd | None) -> None:
    fd = target.fileno()
    if own_image is not None and os.path.sameopenfile(fd, own_image.fileno()):
        return
    _require_empty(fd, home_directory)
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (0, 0) or stat.S_IMODE(found.st_mode) != _MODE:
        # Else its owner could fill it while the home is away, and find it covered later.
        os.fchown(fd, 0, 0)
        os.fchmod(fd, _MODE)
        _require_empty(fd, home_directory)


def _require_empty(fd: int, home_directory: str) -> None:
    if os.listdir(fd):
        raise HomeBusy(
            f"Directory {home_directory} is not empty; a home area can be shown only at an"
            " empty directory."
        )


def publish(mount: Fd, target: Fd) -> None:
    """Show the detached ``mount`` at ``target``; closes it, as open it would keep itself busy."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    move_mount(mount.fileno(), "", target.fileno(), "", flags)
    mount.close()


def take_away(home_directory: str, *, force: bool = False) -> None:
    """Unmount the home and what is mounted below it; `HomeBusy` names who is in the way.

    With ``force`` it disappears at once, for those who still use it when they let go.
    """
    if force:
        _require_active(home_directory)
        for _ in _layers(home_directory):
            umount2(home_directory, UMOUNT_NOFOLLOW | MNT_DETACH)
        return
    # Also when somebody holds it: programs of a session that ends take a moment to go.
    error = _try(home_directory)
    for pause_s in _PAUSES_S:
        if error is None:
            return
        time.sleep(pause_s)
        error = _try(home_directory)
    if error is not None:
        raise _busy(home_directory) from error


def _require_active(home_directory: str) -> Place:
    with suppress(FileNotFoundError, NotADirectoryError):
        where = place(AT_FDCWD, home_directory)
        if where.is_mount_root:
            return where
    raise HomeNotActive(f"Nothing is mounted at {home_directory}.")


def _try(home_directory: str) -> OSError | None:
    """One attempt; the EBUSY it ended with, if so."""
    _require_active(home_directory)
    try:
        for _ in _layers(home_directory):
            _unmount_below(home_directory)
            umount2(home_directory, UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return error
    return None


def _layers(home_directory: str) -> Iterator[None]:
    """Once for each mount there: the user may have mounted something over his home."""
    for _ in range(_LAYERS):
        if not is_active(home_directory):
            return
        yield
    raise OSError(errno.EBUSY, "mounts are being added", home_directory)


def _unmount_below(home_directory: str) -> None:
    """Unmount what is mounted inside the home; all of it, or EBUSY if anything is in use."""
    target, below = _survey(home_directory)
    if not below:
        return
    # Asked first, so that a busy home keeps what is mounted in it.
    if find_holders(target, limit_s=_SEARCH_S):
        raise OSError(errno.EBUSY, "the home or a mount inside it is in use", home_directory)
    with _open_root(home_directory) as root:
        for mount in below:
            _unmount_one(root.fileno(), mount)


def _survey(home_directory: str) -> tuple[Target, list[Mount]]:
    """Whose holders count, and what is mounted below; nothing stays open behind it."""
    with _open_root(home_directory) as root:
        where = place(root.fileno())
        below = submounts(root.fileno())
    ids = frozenset({where.mount_id, *(mount.mount_id for mount in below)})
    return Target(ids, where.device, home_directory), below


def _open_root(home_directory: str) -> Fd:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return Fd.open(home_directory, flags)


def _unmount_one(root: int, mount: Mount) -> None:
    above, name = os.path.split(mount.mount_point)
    # The user owns the way there: it must not lead us to a mount of somebody else.
    with openat2(
        root, above or ".", os.O_PATH | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    ) as parent:
        if place(parent.fileno(), name).mount_id != mount.mount_id:
            raise OSError(errno.EBUSY, "mounts are being changed", mount.mount_point)
        umount2(f"/proc/self/fd/{parent.fileno()}/{name}", UMOUNT_NOFOLLOW)


def _busy(home_directory: str) -> HomeBusy:
    target, below = _survey(home_directory)
    found = find_holders(target, limit_s=_SEARCH_S) + find_loop_devices(target)
    if not found:
        inside = "".join(f", {mount.mount_point} is mounted in it" for mount in below[:1])
        return HomeBusy(f"{home_directory} is in use by something that has no process{inside}.")
    return HomeBusy(f"{home_directory} is in use by {describe(found)}.")


def open_shown(home_directory: str) -> Fd:
    """The top of the home as it is seen now; raises HomeNotActive."""
    with open_safe_parent(home_directory) as parent:
        shown = Fd.open(os.path.basename(home_directory), DIRECTORY_FLAGS, dir_fd=parent.fileno())
    if not place(shown.fileno()).is_mount_root:
        shown.close()
        raise HomeNotActive(f"Nothing is mounted at {home_directory}.")
    return shown


def target_of(home_directory: str) -> Target:
    """What its users hold, to be looked for also when it is mounted no more."""
    return _survey(home_directory)[0]


def users(home_directory: str) -> str:
    """Who has something open in the mounted home, in words; empty if nobody."""
    return describe(find_holders(_survey(home_directory)[0], limit_s=_SEARCH_S))


def describe(found: Sequence[Holder]) -> str:
    """The first few holders in words, and how many more there are."""
    names = [_name(holder) for holder in found[:_NAMES]]
    if len(found) > _NAMES:
        names.append(f"{len(found) - _NAMES} more")
    return ", ".join(names)


def _name(holder: Holder) -> str:
    # The kernel's own holders have no process to be found by.
    pid = f"[{holder.pid}]" if holder.pid else ""
    return f"{holder.comm}{pid} ({holder.what})"
