"""Homes that stay where they are: on a device, or on a file server.

Nothing there is renamed, so what tells such a home from all others is said by what lies there: the
UUID of the volume on a device, which is chosen before that is made; of a share, its name.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeAbsent
from homemgr.record.names import is_remote
from homemgr.storage import block_device
from homemgr.volume import probe

if TYPE_CHECKING:
    from homemgr.files import Fd


def image_at(path: str) -> str:
    """What tells the home at ``path`` from all others; empty if none is there, or seen from here.

    Raises HostileHome if something else than a device bears the name of one.
    """
    if is_remote(path):
        return path
    with suppress(HomeAbsent), block_device.open_device(path, alone=False) as device:
        return _volume_on(device)
    return ""


def forget(path: str, image: str) -> None:
    """Have the home ``image``, see `image_at`, be none any more, if it lies on a device.

    Also if it was never made to its end. Whatever else is there stays as it is, as all does on a
    server. Raises HomeInUse.
    """
    if is_remote(path):
        return
    with suppress(HomeAbsent), block_device.open_device(path, alone=False) as device:
        if not probe.bears(device.fileno(), image):
            return
        # Whoever was killed while making it may still have it for a moment.
        alone = block_device.open_device(path, alone=True)
        try:
            # Now that nobody else can exchange it.
            if probe.bears(alone.fileno(), image):
                block_device.wipe_ends(alone)
        finally:
            block_device.finish(alone)


def _volume_on(device: Fd) -> str:
    homes = probe.user_homes(device.fileno())
    return homes[0].luks_uuid if len(homes) == 1 else ""
