"""Block devices that hold a home, whole or a partition of one: opened alone, made ready, named.

Whoever has one open here has it exclusively, as the kernel sees to it for all who ask for that:
mount(2), device-mapper, mkfs and systemd-homed do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeAbsent, HomeInUse, HostileHome, PathExists
from homemgr.files import Fd
from homemgr.kernel.walk import walk
from homemgr.storage import paths
from homemgr.volume import signatures, udev

if TYPE_CHECKING:
    from contextlib import ExitStack

#: Where udev names devices after what is on them.
_BY_UUID: Final = "/dev/disk/by-uuid"
#: Of loop devices, without their partitions (Documentation/admin-guide/devices.txt).
_LOOP_MAJOR: Final = 7
#: linux/fs.h: read the partition table again.
_BLKRRPART: Final = 0x125F
#: The same: bytes of a sector.
_BLKSSZGET: Final = 0x1268

#: How long somebody who is letting go of the device, or udev, may take (s).
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.01

#: As much as tables, headers and superblocks have at either end.
_ENDS: Final = 2 << 20
#: So much of either end says whether something is on it that bears no signature.
_LOOKED_AT: Final = 1 << 20
#: What an end is filled with that holds nothing: never written or discarded, or erased flash.
_BLANKS: Final = (b"\0", b"\xff")


def open_device(path: str, *, alone: bool) -> Fd:
    """The device, for reading and writing.

    If ``alone``, nobody else has it so until the descriptor, and every loop device on it, is
    closed. Raises HomeAbsent, HostileHome, and HomeInUse after some patience.
    """
    try:
        found = _find(path)
    except FileNotFoundError as error:
        raise HomeAbsent(f"There is no device {path}: is it plugged in?") from error
    with found:
        _require_device(found, path)
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if alone else 0)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return Fd.open(f"/proc/self/fd/{found.fileno()}", flags)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > deadline:
                    raise HomeInUse(
                        f"{path} is mounted, or in use by another program or device."
                    ) from error
            time.sleep(_PAUSE_S)


def _find(path: str) -> Fd:
    """What the path leads to.

    A loop device on a volume bears the UUID of that as well, and udev's name may lead to it for a
    moment when it has nothing behind it any more.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found = walk(path, paths.require_safe_way)
        if not _is_let_go(found) or time.monotonic() > deadline:
            return found
        found.close()
        time.sleep(_PAUSE_S)


def _is_let_go(device: Fd) -> bool:
    """Whether it is a loop device without anything behind it."""
    number = os.fstat(device.fileno()).st_rdev
    where = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/loop"
    return os.major(number) == _LOOP_MAJOR and not os.path.exists(f"{where}/backing_file")


def _require_device(found: Fd, path: str) -> None:
    status = os.fstat(found.fileno())
    # Its group is that of people who may do anything with disks.
    if not stat.S_ISBLK(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o002:
        raise HostileHome(f"{path} is not a block device that only root and its group can write.")


def sector_size(device: Fd) -> int:
    """Bytes of the smallest thing that can be written to it."""
    answer = bytearray(4)
    fcntl.ioctl(device.fileno(), _BLKSSZGET, answer)
    return int.from_bytes(answer, sys.byteorder)


def is_partition(device: Fd) -> bool:
    """Whether it is a part of a larger device."""
    number = os.fstat(device.fileno()).st_rdev
    return os.path.exists(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/partition")


def open_empty(path: str, undo: ExitStack) -> Fd:
    """A device for a new home, as it is; ``undo`` closes it.

    Raises PathExists if something is on it, which nobody but a person may decide to delete.
    """
    device = open_device(path, alone=True)
    undo.callback(device.close)
    # udev does not look at what is half made (systemd's BLOCK_DEVICE_LOCKING).
    with suppress(OSError):
        fcntl.flock(device.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    content = signatures.found_on(device.fileno()) or _unsigned_on(device)
    if content is not None:
        raise PathExists(
            f"{path} is not empty: it holds {content}. If nothing on it is needed any more, take"
            f" all of it away with `blkdiscard --zeroout --force {path}` first."
        )
    return device


def _unsigned_on(device: Fd) -> str | None:
    """What can be said of content that bears no signature; None if both ends are blank.

    Such are volumes without a header, archives on tape-like disks, and what `wipefs` leaves.
    """
    size = os.lseek(device.fileno(), 0, os.SEEK_END)
    length = min(_LOOKED_AT, size)
    for offset, name in ((0, "first"), (size - length, "last")):
        data = os.pread(device.fileno(), length, offset)
        if all(data != blank * length for blank in _BLANKS):
            return f"data of an unknown kind in its {name} MiB"
    return None


def wipe_ends(device: Fd) -> None:
    """Leave nothing on it that looks like a home, after one could not be made to its end."""
    size = os.lseek(device.fileno(), 0, os.SEEK_END)
    length = min(_ENDS, size)
    for offset in (0, size - length):
        os.pwrite(device.fileno(), bytes(length), offset)
    os.fsync(device.fileno())


def finish(device: Fd) -> None:
    """Let the kernel and udev see what was written; then close it."""
    os.fsync(device.fileno())
    # A partition has none, and a loop device may not want any.
    with suppress(OSError):
        fcntl.ioctl(device.fileno(), _BLKRRPART)
    device.close()


def lasting_path(path: str, luks_uuid: str) -> str:
    """Where the volume is found wherever it is plugged in, or ``path`` where nobody says so."""
    lasting = f"{_BY_UUID}/{luks_uuid}"
    deadline = time.monotonic() + (_PATIENCE_S if udev.is_running() else 0)
    while not os.path.exists(lasting):
        if time.monotonic() >= deadline:
            return path
        time.sleep(_PAUSE_S)
    return lasting
