"""A home in use whose disk was pulled out: made to fail, taken away, its users ended.

What programs ask of it fails from then on instead of waiting. Its devices go with the last of
them; until then it cannot be used again, should the disk come back.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeNotActive
from homemgr.kernel import device_mapper, process
from homemgr.kernel.holders import find_holders
from homemgr.kernel.mountinfo import file_systems
from homemgr.kernel.statx import place
from homemgr.kernel.syscall import AT_FDCWD
from homemgr.storage import hidden, inner, luks_devices, luks_keys, mountpoint
from homemgr.volume import liveness

if TYPE_CHECKING:
    from homemgr.kernel.holders import Holder, Target
    from homemgr.storage.kind import Image

#: Programs may begin others while they are ended.
_ROUNDS: Final = 5
_PAUSE_S: Final = 0.05
_SEARCH_S: Final = 1.0


def is_healthy(image: Image) -> bool:
    """Whether the disk below a home in use still answers."""
    device = _device_of(image)
    return os.path.exists(image.path) if device is None else liveness.answers(device)


def _device_of(image: Image) -> str | None:
    """The node of the block device that a mounted home is on."""
    found = luks_devices.status(inner.name_of(image))
    if found is not None:
        return found.path
    with suppress(OSError):
        where = place(AT_FDCWD, image.effective.home_directory)
        source = file_systems()[where.mount_id][1]
        if stat.S_ISBLK(os.stat(source).st_mode):
            return source
    return None


def take_away(image: Image, uid: int) -> list[Holder]:
    """Let the home disappear at once, and end what its user has running in it; who that was.

    Of others who have files of it open nothing is ended: all that they get are errors.
    """
    home_directory, name = image.effective.home_directory, inner.name_of(image)
    luks_keys.forget(name)
    # First, so that nothing below has to wait for a disk that answers no more.
    _cut_off(name)
    hidden.take_away(name)
    # Before it is unmounted: afterwards nothing tells any more what belongs to it.
    target = mountpoint.target_of(home_directory)
    with suppress(HomeNotActive):
        mountpoint.take_away(home_directory, force=True)
    return _end_users(target, uid)


def _cut_off(name: str) -> None:
    """Have everything fail that is asked of the device, which goes with its last user."""
    if luks_devices.status(name) is None:
        return
    with luks_devices.control() as opened, device_mapper.alone(opened.fileno()):
        device_mapper.fail(opened.fileno(), name)
        device_mapper.remove(opened.fileno(), name)


def _end_users(target: Target, uid: int) -> list[Holder]:
    ended: list[Holder] = []
    for _ in range(_ROUNDS):
        found = [h for h in find_holders(target, limit_s=_SEARCH_S) if h.uid == uid]
        if not found:
            break
        for holder in found:
            process.kill(holder.pid, uid)
        ended += found
        time.sleep(_PAUSE_S)
    return ended
