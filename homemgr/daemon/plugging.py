"""Hears of partitions that are plugged in and pulled out, and has the homes on them follow.

Whatever comes in, at whatever rate, gets a small share of the loop: events are read in batches
with pauses, and what follows from all of a batch is done once, by one task.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from homemgr.daemon.manager import Manager

    Properties = Mapping[str, str]

log = logging.getLogger(__name__)

#: Between two batches, if there is more to read (s).
_PAUSE_S = 0.05
#: Before everything is looked through again, because events were lost (s).
_RESCAN_S = 1.0
#: Events that wait while homes are being looked at; beyond that everything is looked through.
_MOST_HEARD = 1000


class Batch(Protocol):
    """Events in their order; some may be left, and some may be lost for ever."""

    @property
    def events(self) -> Sequence[tuple[str, Properties | None]]:
        """By the place of a device: what is there now; None if it is no partition for homes."""

    @property
    def may_be_more(self) -> bool:
        """Whether there is more to read."""

    @property
    def is_incomplete(self) -> bool:
        """Whether some were lost."""


class Devices(Protocol):
    """Tells of partitions for homes; readable when there is news."""

    def fileno(self) -> int:
        """For the event loop."""

    def drain(self) -> Batch:
        """Read the next events; never blocks."""

    def scan(self) -> Mapping[str, Properties]:
        """All that there are; blocks."""

    def close(self) -> None:
        """Stop listening."""


async def follow(manager: Manager, listen: Callable[[], Devices | None]) -> None:
    """Have the homes of ``manager`` follow what ``listen`` gives, until cancelled."""
    devices = await asyncio.to_thread(listen)
    if devices is None:
        return
    plugging = Plugging(manager, devices)
    try:
        await plugging.run()
    finally:
        plugging.close()


class Plugging:
    """Listens to ``devices`` until closed; owns them."""

    def __init__(self, manager: Manager, devices: Devices) -> None:
        """Begin to listen; `run` looks for what is there already."""
        self._manager = manager
        self._devices = devices
        self._is_scan_due = True
        #: Not yet taken note of.
        self._heard: list[tuple[str, Properties | None]] = []
        self._has_news = asyncio.Event()
        self._has_news.set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(devices.fileno(), self._read)

    def close(self) -> None:
        """Listen no more."""
        self._stop_listening()
        self._devices.close()

    def _stop_listening(self) -> None:
        self._loop.remove_reader(self._devices.fileno())
        if self._pause is not None:
            self._pause.cancel()

    # -- hearing ------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            batch = self._devices.drain()
        except OSError as error:
            log.error("Homes on partitions are looked for no more: %s", error)
            self._stop_listening()
            return
        self._heard += batch.events
        self._is_scan_due |= batch.is_incomplete
        if len(self._heard) > _MOST_HEARD:
            self._heard.clear()
            self._is_scan_due = True
        if batch.events or batch.is_incomplete:
            self._has_news.set()
        if batch.may_be_more:
            self._loop.remove_reader(self._devices.fileno())
            self._pause = self._loop.call_later(_PAUSE_S, self._read_on)

    def _read_on(self) -> None:
        self._loop.add_reader(self._devices.fileno(), self._read)

    # -- following ----------------------------------------------------------------------

    async def run(self) -> None:
        """Follow what is heard, until cancelled."""
        is_first = True
        while True:
            await self._has_news.wait()
            # Before the work: what is heard meanwhile has it done once more.
            self._has_news.clear()
            try:
                await self._take_in(is_first=is_first)
            except Exception as error:  # noqa: BLE001 -- a bug: sticks must not end with it
                log.error("Bug in the homes on partitions: %s: %s", type(error).__name__, error)
            is_first = False

    async def _take_in(self, *, is_first: bool) -> None:
        is_news = self._is_scan_due
        if self._is_scan_due:
            await self._scan(0 if is_first else _RESCAN_S)
        heard, self._heard = self._heard, []
        for place, properties in heard:
            is_news |= self._manager.offers.sticks.note(place, properties)
        if is_news:
            await self._manager.discover_partitions()

    async def _scan(self, delay_s: float) -> None:
        """Look through everything; what is heard meanwhile is newer."""
        if delay_s:
            log.info("Too many events of devices to follow: looking through all of them.")
            await asyncio.sleep(delay_s)
        self._is_scan_due = False
        self._heard.clear()
        found = await asyncio.to_thread(self._devices.scan)
        self._manager.offers.sticks.replace(found)
