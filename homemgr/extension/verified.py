"""A block device that shows part of a file, every block checked by its tree of digests.

The device and what it is made of go by themselves with their last user, however the one
who made them ends. One that is there for the same image already is used again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr.extension.shelf import name_of
from homemgr.files import Fd
from homemgr.kernel import device_mapper, loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.extension.hash_tree import Tree
    from homemgr.extension.partition_types import Sealed
    from homemgr.volume.gpt import Partition

log = logging.getLogger(__name__)

_PREFIX = "homemgr-"
_TARGET = "verity"

#: How a kernel says that it has no device-mapper, and a container that it may not be used.
_NONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EPERM, errno.EACCES)

#: How often a device may go away just when it was found.
_RACES = 32

#: There if the kernel has device-mapper already, without being asked to load it.
_LOADED = "/sys/class/misc/device-mapper"


class CannotVerifyError(Exception):
    """This kernel checks no blocks; the text says what it lacks."""


def open_verified(image: Fd, parts: Sealed, tree: Tree, root_hash: bytes) -> Fd:
    """A device with the data of ``parts``, gone once neither descriptor nor mount uses it.

    Reading what is not as ``root_hash`` says fails with EIO, also in whatever is mounted
    from it. Raises CannotVerifyError.
    """
    with _control() as control, device_mapper.alone(control):
        if not device_mapper.has_target(control, _TARGET):
            raise CannotVerifyError("this kernel has no dm-verity")
        _remove_leftovers(control)
        name = _name(image, parts, tree, root_hash)
        for _ in range(_RACES):
            with suppress(FileExistsError):
                return _shared(control, name) or _made(control, name, image, parts, tree, root_hash)
        raise OSError(errno.EBUSY, f"device {name} goes away again and again")


def path_of(device: Fd) -> str:
    """Where the open ``device`` can be mounted from."""
    return device_mapper.path_of(os.fstat(device.fileno()).st_rdev)


def sweep() -> None:
    """Remove what somebody left who was killed while making a device."""
    if os.path.exists(_LOADED):
        with suppress(CannotVerifyError), _control() as control, device_mapper.alone(control):
            _remove_leftovers(control)


@contextmanager
def _control() -> Iterator[int]:
    try:
        control = device_mapper.open_control()
    except OSError as error:
        if error.errno not in _NONE:
            raise
        raise CannotVerifyError("this kernel has no device-mapper") from error
    with control:
        yield control.fileno()


def _remove_leftovers(control: int) -> None:
    for name in device_mapper.names(control):
        if not name.startswith(_PREFIX):
            continue
        found = device_mapper.status(control, name)
        if found is not None and not found.is_going:
            log.warning("Removing device %s, which somebody left who was killed.", name)
            with suppress(OSError):
                device_mapper.remove(control, name)


def _name(image: Fd, parts: Sealed, tree: Tree, root_hash: bytes) -> str:
    # With the file in it: of two copies one may be damaged.
    what = repr((name_of(image), *(p[2:4] for p in parts), tree, root_hash))
    return _PREFIX + hashlib.sha256(what.encode()).hexdigest()[:32]


def _shared(control: int, name: str) -> Fd | None:
    found = device_mapper.status(control, name)
    if found is None:
        return None
    try:
        device = Fd.open(found.path, os.O_RDONLY)
    except OSError:
        # Its last user has just gone.
        return None
    # Open, so the number cannot become somebody else's any more.
    now = device_mapper.status(control, number=os.fstat(device.fileno()).st_rdev)
    if now is not None and now.name == name and now.is_active:
        return device
    device.close()
    return None


def _made(control: int, name: str, image: Fd, parts: Sealed, tree: Tree, root_hash: bytes) -> Fd:
    with ExitStack() as undo:
        try:
            made = device_mapper.create(control, name, f"HOMEMGR-{name.removeprefix(_PREFIX)}")
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise FileExistsError from error
            raise
        undo.callback(_remove, control, name)
        with _loop(image, parts.data) as data, _loop(image, parts.hashes) as hashes:
            line = tree.parameters(_number(data), _number(hashes), root_hash)
            # From here on the device keeps the others, and they the file.
            device_mapper.load(control, name, _TARGET, tree.data_size, line)
        # Before it does anything at all it is told to go with its last user, who are we.
        device = undo.enter_context(Fd.open(made.path, os.O_RDONLY))
        device_mapper.remove(control, name)
        device_mapper.resume(control, name)
        undo.pop_all()
        return device


def _remove(control: int, name: str) -> None:
    # ENXIO: it has gone by itself.
    with suppress(OSError):
        device_mapper.remove(control, name)


def _loop(image: Fd, partition: Partition) -> Fd:
    return loop.attach_shared(
        image.fileno(), offset=partition.start, size_limit=partition.size
    ).device


def _number(device: Fd) -> str:
    number = os.fstat(device.fileno()).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
