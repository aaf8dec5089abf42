"""Image files of homes, whatever is in them: found, locked, marked, made, swept.

Knows nothing of what lies inside.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import (
    BadHomeSize,
    FileNotFound,
    HomeAbsent,
    HomeInUse,
    HostileHome,
    NoDiskSpace,
    PathExists,
)
from homemgr.files import Fd
from homemgr.kernel import space
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.record.names import is_device
from homemgr.storage import block_device, directory
from homemgr.storage.directory import GONE_PREFIX, NEW_PREFIX, RANDOM_BYTES
from homemgr.storage.kind import Storage
from homemgr.storage.paths import location, open_safe_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.record.volume_settings import VolumeSettings

#: Set while a home is in use, by systemd-homed too.
_DIRTY: Final = "user.home-dirty"

#: No copy on write, which would tear a file like this to pieces (ioctl_iflags(2)).
_NOCOW: Final = 0x00800000

_BLOCK: Final = 4096
#: systemd-homed's limits; what a table, a header and the smallest file system take.
_SMALLEST, _LARGEST = 32 << 20, 5 << 40
#: Of the free space, if nobody says how large.
_DEFAULT_SHARE: Final = 0.83
_SCALE: Final = 1 << 32

#: How long a lock is waited for, and how often it is tried (s).
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.005

#: What turns out to be no regular file must neither have us wait nor become our terminal.
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class FileStorage(Storage):
    """What all storages share whose image is a file."""

    image_is_file = True
    goes_with_mount = True

    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Rename the image; a device stays as it is, as systemd-homed leaves it."""
        if not _is_device(parent, file_name):
            directory.set_aside(parent, file_name)

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete the image."""
        for entry in os.listdir(parent.fileno()):
            if entry.startswith(GONE_PREFIX) and (
                directory.original_name(entry, GONE_PREFIX) == file_name
            ):
                os.unlink(entry, dir_fd=parent.fileno())

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Delete images that are not yet, or no longer, a home, whatever is in them."""
        return [
            directory.original_name(entry, GONE_PREFIX)
            for entry in sweep(parent, (NEW_PREFIX, GONE_PREFIX))
            if entry.startswith(GONE_PREFIX)
        ]


def _is_device(parent: Fd, name: str) -> bool:
    """Whether it is a device, or the link of one."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
        return not stat.S_ISREG(found.st_mode)
    return False


def open_image(path: str) -> Fd:
    """The image, open for reading and writing. Raises HomeAbsent and HostileHome."""
    if is_device(path):
        return block_device.open_device(path, alone=False)
    try:
        with open_safe_parent(path) as parent:
            return _open_in(parent, os.path.basename(path))
    except (FileNotFound, FileNotFoundError) as error:
        raise HomeAbsent(f"There is no home area at {path}.") from error


def _open_in(parent: Fd, name: str) -> Fd:
    where = os.path.join(location(parent.fileno()), name)
    try:
        fd = openat2(parent.fileno(), name, _FLAGS, RESOLVE_NO_SYMLINKS)
    except OSError as error:
        # A link, a directory, and a socket or a device that nothing drives.
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise HostileHome(f"{where} is not a regular file.") from error
    found = os.fstat(fd.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        fd.close()
        raise HostileHome(f"{where} is not a regular file that only root can write to.")
    return fd


def open_alone(path: str) -> Fd:
    """The image, which nobody else has as long as it, or a loop device on it, is open.

    Raises HomeInUse too.
    """
    if is_device(path):
        return block_device.open_device(path, alone=True)
    with ExitStack() as on_failure:
        image = on_failure.enter_context(open_image(path))
        lock(image, path)
        on_failure.pop_all()
    return image


def lock(image: Fd, path: str) -> None:
    """Have it alone, as long as this descriptor or a loop device keeps the file open.

    Raises HomeInUse, after a loop device on its way out had the time to go.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(image.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise HomeInUse(
                    f"{path} is in use by another program, or another machine that shares it."
                ) from error
        time.sleep(_PAUSE_S)


def extent(image: Fd) -> tuple[int, int]:
    """Bytes of an image, and how many of them are allocated; of a device all are."""
    size, found = os.lseek(image.fileno(), 0, os.SEEK_END), os.fstat(image.fileno())
    return size, size if stat.S_ISBLK(found.st_mode) else found.st_blocks * 512


def set_dirty(image: Fd, *, is_dirty: bool) -> None:
    """Mark the image as in use or not, where its file system has room for it."""
    with suppress(OSError):
        if is_dirty:
            os.setxattr(image.fileno(), _DIRTY, b"1")
        else:
            os.removexattr(image.fileno(), _DIRTY)


# --- new ones ---------------------------------------------------------------------------


def make(
    parent: Fd, file_name: str, settings: VolumeSettings, undo: ExitStack
) -> tuple[str, Fd, int]:
    """An empty image as large as the record says; ``undo`` deletes it. Its name, it, its bytes."""
    name = f"{NEW_PREFIX}{file_name}.{secrets.token_hex(RANDOM_BYTES)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = Fd.open(name, flags, 0o600, dir_fd=parent.fileno())
    undo.callback(os.unlink, name, dir_fd=parent.fileno())
    undo.callback(fd.close)
    # Whoever sweeps sees that somebody is at work.
    fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    size = _new_size(parent, settings)
    with suppress(OSError):
        # Before it has any content: later btrfs does not heed it. Others have no such flag.
        set_flags(fd.fileno(), get_flags(fd.fileno()) | _NOCOW)
    _allocate(fd, size, is_sparse=settings.discard)
    return name, fd, size


def _new_size(parent: Fd, settings: VolumeSettings) -> int:
    disk = os.fstatvfs(parent.fileno())
    free = disk.f_bavail * disk.f_frsize
    size = (wanted_size(settings, free) or int(free * _DEFAULT_SHARE)) // _BLOCK * _BLOCK
    check_size(size)
    if size > free and not settings.discard:
        raise NoDiskSpace(
            f"An image of {size} bytes does not fit into {location(parent.fileno())}, which has"
            f" {free} bytes free; choose a smaller --disk-size=."
        )
    return size


def wanted_size(settings: VolumeSettings, free: int) -> int | None:
    """How many of ``free`` bytes the record asks for, if it does."""
    if settings.disk_size is not None:
        return settings.disk_size
    if settings.disk_size_relative is not None:
        return settings.disk_size_relative * free // _SCALE
    return None


def check_size(size: int) -> None:
    """Raise BadHomeSize for an image of this many bytes that nobody can use."""
    if not _SMALLEST <= size <= _LARGEST:
        raise BadHomeSize(
            f"An image of {size} bytes cannot be made; it has {_SMALLEST} bytes at least"
            f" and {_LARGEST} at most."
        )


def _allocate(fd: Fd, size: int, *, is_sparse: bool) -> None:
    os.ftruncate(fd.fileno(), size)
    if is_sparse:
        return
    try:
        space.allocate(fd.fileno(), 0, size)
    except OSError as error:
        # Where nothing can be reserved zeros are not written instead: it grows as it is used.
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def publish(parent: Fd, name: str, file_name: str) -> None:
    """Give the finished image its name, durably. Raises PathExists."""
    try:
        renameat2(parent.fileno(), name, parent.fileno(), file_name, RENAME_NOREPLACE)
    except FileExistsError as error:
        where = os.path.join(location(parent.fileno()), file_name)
        raise PathExists(f"{where} exists already.") from error
    os.fsync(parent.fileno())


def sweep(parent: Fd, prefixes: Sequence[str]) -> list[str]:
    """Delete images that killed operations left half-made or half-deleted; their names."""
    gone = []
    for entry in sorted(os.listdir(parent.fileno())):
        if not entry.startswith(tuple(prefixes)):
            continue
        with suppress(OSError):
            # By name, before it is opened: opening a device may already do something.
            if not stat.S_ISREG(os.lstat(f"/proc/self/fd/{parent.fileno()}/{entry}").st_mode):
                continue
            with openat2(parent.fileno(), entry, _FLAGS, RESOLVE_NO_SYMLINKS) as image:
                # Whoever is still at work on it has it locked: then it is left to him.
                fcntl.flock(image.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry, dir_fd=parent.fileno())
                gone.append(entry)
    return gone
