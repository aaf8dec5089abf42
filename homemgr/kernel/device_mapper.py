"""Device-mapper: block devices that are made of others, see dm-ioctl.h of the kernel.

One function for each request to /dev/mapper/control. The kernel gives every device a
number, and its node is /dev/dm-NUMBER. Names and numbers are those of the whole machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The interface as of Linux 5.4; the kernel takes what is older than itself.
_VERSION = (4, 41, 0)

_LIST_DEVICES = 2
_DEV_CREATE = 3
_DEV_REMOVE = 4
#: Without _SUSPEND_FLAG it resumes, and the table that was loaded takes the old one's place.
_DEV_SUSPEND = 6
_DEV_STATUS = 7
_TABLE_LOAD = 9
_TABLE_STATUS = 12
_GET_TARGET_VERSION = 17

_READONLY_FLAG = 1 << 0
_SUSPEND_FLAG = 1 << 1
_STATUS_TABLE_FLAG = 1 << 4
_ACTIVE_PRESENT_FLAG = 1 << 5
_BUFFER_FULL_FLAG = 1 << 8
_SKIP_LOCKFS_FLAG = 1 << 10
_NOFLUSH_FLAG = 1 << 11
_DEFERRED_REMOVE_FLAG = 1 << 17

#: struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags,
#: event_nr, padding, dev, name[128], uuid[129], and 7 bytes to the next multiple of 8.
_HEAD = "=3IIIIiIIIQ128s129s7x"
_HEAD_SIZE = struct.calcsize(_HEAD)
#: struct dm_target_spec: sector_start, length, status, next, target_type[16].
_TARGET = "=QQiI16s"
#: struct dm_name_list: dev, next; then the name with a zero at its end.
_LISTED = "=QI"

_ROOM = 16384
_ROOM_LIMIT = 1 << 20

#: What these sectors are, whatever the devices have.
SECTOR = 512


class Table(NamedTuple):
    """What a device with one target is made of; parameters as the target's driver has them."""

    kind: str
    parameters: str


class Device(NamedTuple):
    """What the kernel says of one device; ``number`` as in stat(2)."""

    name: str
    uuid: str
    number: int
    #: Whether it does anything yet.
    is_active: bool
    #: Whether it goes away by itself with its last user.
    is_going: bool
    #: Whether who reads or writes waits.
    is_suspended: bool = False

    @property
    def path(self) -> str:
        """Its node, which is there from the first table on."""
        return path_of(self.number)


def path_of(number: int) -> str:
    """The node of the device with this number."""
    return f"/dev/dm-{os.minor(number)}"


def open_control() -> Fd:
    """The kernel's ear; an OSError of ENOENT, ENODEV or ENXIO if it has no device-mapper."""
    return Fd.open("/dev/mapper/control", os.O_RDWR)


@contextmanager
def alone(control: int) -> Iterator[None]:
    """Keep others who make devices of ours out; who is killed has the lock no more.

    Between the making of a device and its being told to go by itself nobody else may take it
    for a leftover.
    """
    fcntl.flock(control, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(control, fcntl.LOCK_UN)


def has_target(control: int, kind: str) -> bool:
    """Whether the kernel knows this kind of target; loads its module if it can."""
    try:
        _request(control, _GET_TARGET_VERSION, name=kind, payload=bytes(256))
    except OSError as error:
        # The kernel's word for a target that it does not know, and has found no module for.
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def create(control: int, name: str, uuid: str) -> Device:
    """A device without a table; EBUSY if name or uuid are taken."""
    return _device(_request(control, _DEV_CREATE, name=name, uuid=uuid))


def table(control: int, name: str) -> Table:
    """The first target of a device; a key that lies in a keyring is named there, not told."""
    answer = _request(
        control, _TABLE_STATUS, name=name, flags=_STATUS_TABLE_FLAG, payload=bytes(_ROOM)
    )
    start = struct.unpack_from(_HEAD, answer)[4]
    kind = struct.unpack_from(_TARGET, answer, start)[4]
    text = answer[start + struct.calcsize(_TARGET) :]
    first = (one.partition(b"\0")[0].decode("ascii") for one in (kind, text))
    return Table(*first)


def load(
    control: int, name: str, kind: str, size: int, parameters: str, *, is_writable: bool = False
) -> None:
    """Give a device a table of one target over all its ``size`` bytes."""
    flags = 0 if is_writable else _READONLY_FLAG
    text = parameters.encode("ascii") + b"\0"
    # A target that follows has to begin on a multiple of 8, see dm-ioctl.h.
    text += bytes(-len(text) % 8)
    target = struct.pack(_TARGET, 0, size // SECTOR, 0, 0, kind.encode("ascii"))
    _request(control, _TABLE_LOAD, name=name, flags=flags, payload=target + text, count=1)


def resume(control: int, name: str) -> Device:
    """Let the table that was loaded take effect."""
    return _device(_request(control, _DEV_SUSPEND, name=name, flags=_READONLY_FLAG))


def fail(control: int, name: str) -> None:
    """Have all that is and will be asked of a device fail, and let go of what is below it."""
    found = _device(_request(control, _DEV_STATUS, name=name))
    number = f"{os.major(found.number)}:{os.minor(found.number)}"
    with Fd.open(f"/sys/dev/block/{number}/size", os.O_RDONLY) as size:
        sectors = int(os.read(size.fileno(), 32))
    load(control, name, "error", sectors * SECTOR, "")
    # Its file system is not asked to write what it has, nor waited for: it could wait for ever.
    flags = _SKIP_LOCKFS_FLAG | _NOFLUSH_FLAG
    _request(control, _DEV_SUSPEND, name=name, flags=flags)


def remove(control: int, name: str) -> None:
    """Take a device away: now, or if somebody has it open as soon as nobody has any more."""
    _request(control, _DEV_REMOVE, name=name, flags=_DEFERRED_REMOVE_FLAG)


def status(control: int, name: str = "", number: int = 0) -> Device | None:
    """The device of this name or else of this number, if there is one."""
    try:
        return _device(_request(control, _DEV_STATUS, name=name, number=number))
    except OSError as error:
        # The kernel's word for: there is no such device.
        if error.errno == errno.ENXIO:
            return None
        raise


def names(control: int) -> list[str]:
    """The names of all devices there are."""
    room = _ROOM
    while True:
        answer = _request(control, _LIST_DEVICES, payload=bytes(room))
        size, start, flags = (struct.unpack_from(_HEAD, answer)[n] for n in (3, 4, 7))
        if not flags & _BUFFER_FULL_FLAG or room > _ROOM_LIMIT:
            return _listed(answer[start:size])
        room *= 4


def _listed(area: bytes) -> list[str]:
    found, offset = [], 0
    while offset + struct.calcsize(_LISTED) < len(area):
        number, following = struct.unpack_from(_LISTED, area, offset)
        if number:
            name = area[offset + struct.calcsize(_LISTED) :].partition(b"\0")[0]
            found.append(os.fsdecode(name))
        if not following:
            break
        offset += following
    return found


def _request(
    control: int,
    command: int,
    *,
    name: str = "",
    uuid: str = "",
    number: int = 0,
    flags: int = 0,
    payload: bytes = b"",
    count: int = 0,
) -> bytes:
    size = _HEAD_SIZE + len(payload)
    texts = name.encode("ascii"), uuid.encode("ascii")
    head = struct.pack(_HEAD, *_VERSION, size, _HEAD_SIZE, count, 0, flags, 0, 0, number, *texts)
    area = bytearray(head + payload)
    # _IOWR(0xfd, command, struct dm_ioctl)
    request = 3 << 30 | _HEAD_SIZE << 16 | 0xFD << 8 | command
    fcntl.ioctl(control, request, area)
    return bytes(area)


def _device(answer: bytes) -> Device:
    fields = struct.unpack_from(_HEAD, answer)
    flags, number = fields[7], fields[10]
    name, uuid = (os.fsdecode(text.partition(b"\0")[0]) for text in fields[11:13])
    is_active, is_going = bool(flags & _ACTIVE_PRESENT_FLAG), bool(flags & _DEFERRED_REMOVE_FLAG)
    return Device(name, uuid, number, is_active, is_going, bool(flags & _SUSPEND_FLAG))
