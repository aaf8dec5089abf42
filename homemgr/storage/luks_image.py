"""The image file of a `luks` home: found, locked, made, and the part of it that is encrypted.

Layout as systemd-homed 262 writes it; read is also a volume without partition table. Unlocks
nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import (
    BadHomeSize,
    FileNotFound,
    HomeAbsent,
    HomeInUse,
    HostileHome,
    NoDiskSpace,
    NotSupported,
    PathExists,
    UnrecognizedHomeFormat,
)
from homemgr.files import Fd
from homemgr.kernel import loop
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.kernel.openat2 import RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.rename import RENAME_NOREPLACE, renameat2
from homemgr.storage.directory import NEW_PREFIX, RANDOM_BYTES
from homemgr.storage.paths import location, open_safe_parent
from homemgr.volume import gpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.record.volume_settings import VolumeSettings

#: systemd's "Discoverable Partitions Specification", user home.
USER_HOME: Final = "773f91ef-66d4-49b5-bd83-d683bf40ad16"

#: Set while a home is in use, by systemd-homed too.
_DIRTY: Final = "user.home-dirty"

#: No copy on write, which would tear a file like this to pieces (ioctl_iflags(2)).
_NOCOW: Final = 0x00800000

_LUKS_MAGIC: Final = b"LUKS\xba\xbe"
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
_BLOCK: Final = 4096
#: systemd-homed's limits; what a table, a header and the smallest file system take.
_SMALLEST, _LARGEST = 32 << 20, 5 << 40
#: Of the free space, if nobody says how large.
_DEFAULT_SHARE: Final = 0.83
_SCALE: Final = 1 << 32

#: How long a lock is waited for, and how often it is tried (s).
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.005

_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Part(NamedTuple):
    """Where in the image the volume is, in bytes; and the partition, if it has a table."""

    offset: int
    size: int
    guid: str | None


def open_image(path: str) -> Fd:
    """The image, open for reading and writing. Raises HomeAbsent and HostileHome."""
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
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise HostileHome(f"{where} is not a regular file.") from error
    found = os.fstat(fd.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        fd.close()
        raise HostileHome(f"{where} is not a regular file that only root can write to.")
    return fd


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


def find_part(image: Fd, path: str, settings: VolumeSettings, label: str) -> Part:
    """The encrypted part of an image: the whole, or its one partition for homes.

    Raises UnrecognizedHomeFormat, which says what is there instead.
    """
    size = os.fstat(image.fileno()).st_size
    if os.pread(image.fileno(), len(_LUKS_MAGIC), 0) == _LUKS_MAGIC:
        return Part(0, size, None)
    try:
        every = gpt.partitions(lambda at, length: os.pread(image.fileno(), length, at), size)
    except ValueError as error:
        raise UnrecognizedHomeFormat(f"{path} is no encrypted home: {error}.") from error
    found = [p for p in every if p.type_guid == USER_HOME and p.name == label]
    if settings.partition_uuid is not None:
        found = [p for p in found if p.guid == settings.partition_uuid]
    if len(found) != 1:
        raise UnrecognizedHomeFormat(
            f"{path} has {len(found)} partitions that hold the home of {label}; expected one."
        )
    return Part(found[0].start, found[0].size, found[0].guid)


def attach(image: Fd, part: Part, sector: int = 0) -> loop.Loop:
    """The encrypted part as a device, which goes by itself with its last user."""
    return loop.attach(image.fileno(), offset=part.offset, size_limit=part.size, block_size=sector)


def set_dirty(image: Fd, *, is_dirty: bool) -> None:
    """Mark the image as in use or not, where its file system has room for it."""
    with suppress(OSError):
        if is_dirty:
            os.setxattr(image.fileno(), _DIRTY, b"1")
        else:
            os.removexattr(image.fileno(), _DIRTY)


# --- new ones ---------------------------------------------------------------------------


class NewImage(NamedTuple):
    """An image that is being made under a name that says so."""

    fd: Fd
    part: Part
    sector: int


def sector_size(settings: VolumeSettings) -> int:
    """Bytes of a sector of the volume; InvalidArgs is the rule's business, this is not."""
    size = settings.sector_size or 512
    if size not in _SECTOR_SIZES:
        raise NotSupported(f"luksSectorSize: {size} is none of 512, 1024, 2048 and 4096.")
    return size


def make(
    parent: Fd, file_name: str, settings: VolumeSettings, label: str, undo: ExitStack
) -> tuple[str, NewImage]:
    """An image with nothing but its partition; ``undo`` deletes it. Its name, and it."""
    name = f"{NEW_PREFIX}{file_name}.{secrets.token_hex(RANDOM_BYTES)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = Fd.open(name, flags, 0o600, dir_fd=parent.fileno())
    undo.callback(os.unlink, name, dir_fd=parent.fileno())
    undo.callback(fd.close)
    # Whoever sweeps sees that somebody is at work.
    fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    size = _new_size(parent, settings)
    with suppress(OSError):
        set_flags(fd.fileno(), get_flags(fd.fileno()) | _NOCOW)
    _allocate(fd, size, is_sparse=settings.discard)
    # The table counts in sectors of the file, which are 512 bytes whatever the volume has.
    start, length = gpt.only_partition(size)
    guid = settings.partition_uuid or str(uuid.uuid4())
    partition = gpt.Partition(USER_HOME, guid, start, length, label)
    for offset, data in gpt.table(size, str(uuid.uuid4()), partition).items():
        os.pwrite(fd.fileno(), data, offset)
    return name, NewImage(fd, Part(start, length, guid), sector_size(settings))


def _new_size(parent: Fd, settings: VolumeSettings) -> int:
    disk = os.fstatvfs(parent.fileno())
    free = disk.f_bavail * disk.f_frsize
    if settings.disk_size is not None:
        size = settings.disk_size
    elif settings.disk_size_relative is not None:
        size = settings.disk_size_relative * free // _SCALE
    else:
        size = int(free * _DEFAULT_SHARE)
    size = size // _BLOCK * _BLOCK
    if not _SMALLEST <= size <= _LARGEST:
        raise BadHomeSize(
            f"An encrypted image of {size} bytes cannot be made; it has {_SMALLEST} bytes at least"
            f" and {_LARGEST} at most."
        )
    if size > free and not settings.discard:
        raise NoDiskSpace(
            f"An image of {size} bytes does not fit into {location(parent.fileno())}, which has"
            f" {free} bytes free; choose a smaller --disk-size=."
        )
    return size


def _allocate(fd: Fd, size: int, *, is_sparse: bool) -> None:
    os.ftruncate(fd.fileno(), size)
    if is_sparse:
        return
    try:
        os.posix_fallocate(fd.fileno(), 0, size)
    except OSError as error:
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
            if not stat.S_ISREG(os.lstat(f"/proc/self/fd/{parent.fileno()}/{entry}").st_mode):
                continue
            with openat2(parent.fileno(), entry, _FLAGS, RESOLVE_NO_SYMLINKS) as image:
                fcntl.flock(image.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry, dir_fd=parent.fileno())
                gone.append(entry)
    return gone
