"""Devices of `luks` homes in the kernel's device-mapper: named, made, told to go, waited for.

Knows nothing of what is on them.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeAbsent, HomeInUse, NotSupported
from homemgr.files import Fd
from homemgr.kernel import device_mapper, keyring

if TYPE_CHECKING:
    from homemgr.record.volume_settings import VolumeSettings
    from homemgr.volume.luks import Volume

#: Devices of homes that are being made; no user's is called so.
NEW_PREFIX: Final = "homenew-"

#: There if the kernel has device-mapper already, without being asked to load it.
_LOADED: Final = "/sys/class/misc/device-mapper"

#: How long a device that was told to go may take, and how often it is looked for (s).
_GOING_S: Final = 5.0
_LOOK_S: Final = 0.005


def control() -> Fd:
    """The kernel's device-mapper. Raises NotSupported."""
    try:
        return device_mapper.open_control()
    except OSError as error:
        raise NotSupported(
            f"This kernel makes no encrypted devices: {error.strerror}. It needs device-mapper"
            " and dm-crypt."
        ) from error


def discards(settings: VolumeSettings) -> bool:
    """Whether the device passes on what is not needed any more, now or at logout."""
    return settings.discard or settings.offline_discard


def activate(volume: Volume, name: str, key: bytearray, *, discards: bool) -> Fd:
    """The device of the volume, which goes with its last user."""
    with control() as opened, device_mapper.alone(opened.fileno()), ExitStack() as on_failure:
        volume.activate(name, key, discards=discards)
        on_failure.callback(volume.deactivate, name, once_unused=True)
        # The library leaves the key there, and this process may have other homes to open.
        with suppress(OSError):
            keyring.clear_own()
        device = open_device(name)
        volume.deactivate(name, once_unused=True)
        on_failure.pop_all()
        return device


def open_device(name: str) -> Fd:
    """The device of this name; HomeAbsent if there is none."""
    with device_mapper.open_control() as opened:
        found = device_mapper.status(opened.fileno(), name)
    if found is None:
        raise HomeAbsent(f"Device {name} has just gone.")
    return Fd.open(found.path, os.O_RDWR | os.O_CLOEXEC)


def open_below(name: str) -> Fd:
    """The loop device that the device of this name lies on; HomeInUse if it is no such."""
    with open_device(name) as device:
        number = os.fstat(device.fileno()).st_rdev
    below = os.listdir(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/slaves")
    if len(below) != 1 or not below[0].startswith("loop"):
        raise HomeInUse(f"Device {name} does not lie on an image file.")
    return Fd.open(f"/dev/{below[0]}", os.O_RDWR)


def status(name: str) -> device_mapper.Device | None:
    """What the kernel says of the device of this name, if there is one."""
    if not os.path.exists(_LOADED):
        return None
    with device_mapper.open_control() as opened:
        return device_mapper.status(opened.fileno(), name)


def have_go(name: str) -> None:
    """Have the device of this name go with its last user, if there is one.

    Ours were told so when they were made, and may be going just now: a library that has to look
    at one first would complain about it in the log.
    """
    found = status(name)
    if found is None or found.is_going:
        return
    # That it has gone meanwhile is what is wanted; that it stays is seen by who waits for it.
    with suppress(OSError), device_mapper.open_control() as opened:
        device_mapper.remove(opened.fileno(), name)


def wait_for_end(name: str) -> bool:
    """Whether the device goes away, if it was told to and nobody uses it."""
    deadline = time.monotonic() + _GOING_S
    while (found := status(name)) is not None:
        if not found.is_going or time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def sweep() -> None:
    """Have devices go whose makers were killed."""
    if not os.path.exists(_LOADED):
        return
    with suppress(OSError), device_mapper.open_control() as opened:
        fd = opened.fileno()
        with device_mapper.alone(fd):
            for name in device_mapper.names(fd):
                found = device_mapper.status(fd, name)
                # One that is going has a user, with whom it goes by itself.
                if name.startswith(NEW_PREFIX) and found is not None and not found.is_going:
                    device_mapper.remove(fd, name)
