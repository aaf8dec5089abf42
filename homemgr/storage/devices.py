"""Notices partitions for homes that are plugged in or pulled out, as udev tells of them.

Nothing of a device is read here: what is known of it is what udev's own programs found, and all
of that may have been put there by whoever had it. Events that were lost are found out by `scan`.
Names of properties: systemd-udevd's builtin blkid, as in udevadm(8).
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.volume import udev
from homemgr.volume.probe import USER_HOME

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyudev

log = logging.getLogger(__name__)

#: What is said of a partition for homes, besides its type.
_TOLD: Final = ("ID_PART_ENTRY_NAME", "ID_FS_TYPE", "ID_FS_UUID")

#: So many events are read at once; who reads on lets others have their turn in between.
_AT_ONCE: Final = 32


class Batch(NamedTuple):
    """Events in their order, by the place of each device in /sys: what is there now, if anything.

    With ``is_incomplete`` some were lost.
    """

    events: list[tuple[str, dict[str, str] | None]]
    may_be_more: bool
    is_incomplete: bool


class Devices:
    """Listens until closed. Raises OSError, ImportError without udev's library."""

    def __init__(self) -> None:
        """Begin to listen."""
        # Not before somebody listens: a hundredth of a second and half a megabyte.
        import pyudev

        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context())
        self._monitor.filter_by("block")
        self._monitor.start()

    def fileno(self) -> int:
        """Readable when something happened."""
        return int(self._monitor.fileno())

    def drain(self) -> Batch:
        """Read what happened, or the first part of it. Never blocks."""
        events: list[tuple[str, dict[str, str] | None]] = []
        try:
            while len(events) < _AT_ONCE:
                device = self._monitor.poll(0)
                if device is None:
                    return Batch(events, may_be_more=False, is_incomplete=False)
                events.append(_event(device))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return Batch(events, may_be_more=True, is_incomplete=True)
        return Batch(events, may_be_more=True, is_incomplete=False)

    def scan(self) -> dict[str, dict[str, str]]:
        """Every partition for homes that is there, by its place in /sys; blocks."""
        import pyudev

        # Of its own: the library is not made for several threads.
        found = pyudev.Context().list_devices(subsystem="block", ID_PART_ENTRY_TYPE=USER_HOME)
        seen = {str(device.sys_path): told(device.properties) for device in found}
        return {place: properties for place, properties in seen.items() if properties is not None}

    def close(self) -> None:
        """Stop listening."""
        # The library closes its socket with the last reference to it.
        del self._monitor


def _event(device: pyudev.Device) -> tuple[str, dict[str, str] | None]:
    is_there = device.action != "remove"
    return str(device.sys_path), told(device.properties) if is_there else None


def told(properties: Mapping[str, str]) -> dict[str, str] | None:
    """What udev says of a partition for homes; None if the device is something else."""
    is_ours = (
        properties.get("ID_PART_ENTRY_SCHEME") == "gpt"
        and properties.get("ID_PART_ENTRY_TYPE") == USER_HOME
    )
    if not is_ours:
        return None
    try:
        return {name: str(properties.get(name, "")) for name in _TOLD}
    except UnicodeDecodeError:
        # udev writes these in ASCII and UTF-8; what is not that is no name of anybody.
        return None


def listen() -> Devices | None:
    """Listen to udev, or None if there is none, as in a container; blocks."""
    if not udev.is_running():
        log.info("udev does not run here: homes on sticks and partitions are not looked for.")
        return None
    try:
        return Devices()
    except (OSError, ImportError) as error:
        log.warning("Homes on sticks and partitions are not looked for: %s", error)
        return None
