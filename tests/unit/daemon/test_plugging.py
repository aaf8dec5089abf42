"""Events of devices and the loop: everything is followed, and others have their turn."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

from homemgr.daemon import plugging
from homemgr.daemon.sticks import Sticks
from tests.unit.daemon.test_sticks import OTHER, UUID, paths, properties

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homemgr.daemon.manager import Manager

Event = tuple[str, "dict[str, str] | None"]


class Batch(NamedTuple):
    events: list[Event]
    may_be_more: bool = False
    is_incomplete: bool = False


class Devices:
    """Devices of a test: what `drain` gives next, and what there is."""

    def __init__(self, there: dict[str, dict[str, str]] | None = None) -> None:
        self.there = there or {}
        self.batches: deque[Batch | OSError] = deque()
        self.scans = 0
        self.is_closed = False
        self._read, self._write = os.pipe()

    def tell(self, *batches: Batch | OSError) -> None:
        self.batches += batches
        os.write(self._write, b"." * len(batches))

    def fileno(self) -> int:
        return self._read

    def drain(self) -> Batch:
        os.read(self._read, 1)
        batch = self.batches.popleft()
        if isinstance(batch, OSError):
            raise batch
        return batch

    def scan(self) -> dict[str, dict[str, str]]:
        self.scans += 1
        return self.there

    def close(self) -> None:
        self.is_closed = True
        os.close(self._read)
        os.close(self._write)


class Followed:
    """As much of a manager as is told of partitions."""

    class Offers:
        def __init__(self) -> None:
            self.sticks = Sticks()

    def __init__(self) -> None:
        self.offers = self.Offers()
        self.looks = 0
        self.looked = asyncio.Event()

    async def discover_partitions(self) -> None:
        self.looks += 1
        self.looked.set()

    async def look(self) -> list[str]:
        """What is known at the next look."""
        await self.looked.wait()
        self.looked.clear()
        return paths(self.offers.sticks)


@asynccontextmanager
async def following(devices: Devices) -> AsyncIterator[Followed]:
    """A manager that is told of devices until the end of the block."""
    manager = Followed()
    task = asyncio.create_task(plugging.follow(cast("Manager", manager), lambda: devices))
    yield manager
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_is_there_and_what_comes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugging, "_PAUSE_S", 0)
    devices = Devices({"/sys/a": properties()})

    async def run() -> None:
        async with following(devices) as manager:
            assert await manager.look() == [UUID]
            devices.tell(
                Batch([("/sys/b", properties("bert", OTHER))], may_be_more=True), Batch([])
            )
            assert await manager.look() == [UUID, OTHER]
            # Of no interest: nobody looks.
            devices.tell(Batch([("/sys/c", None)]), Batch([("/sys/a", None)]))
            assert await manager.look() == [OTHER]
            assert devices.scans == 1

    asyncio.run(run())
    assert devices.is_closed


def test_lost_events_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugging, "_RESCAN_S", 0.01)
    monkeypatch.setattr(plugging, "_PAUSE_S", 0)
    devices = Devices()

    async def run() -> None:
        async with following(devices) as manager:
            assert await manager.look() == []
            devices.there = {"/sys/a": properties()}
            devices.tell(Batch([], is_incomplete=True))
            assert await manager.look() == [UUID]

    asyncio.run(run())


def test_a_flood_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices()
    pauses: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda s, *a: (pauses.append(s), later(0, *a))[1])
        async with following(devices) as manager:
            await manager.look()
            flood = [Batch([("/sys/x", None)] * 32, may_be_more=True)] * 5
            devices.tell(*flood, Batch([("/sys/a", properties())]))
            assert await manager.look() == [UUID]
            # After every batch but the last: nothing else of the loop was kept waiting.
            assert len([pause for pause in pauses if pause == plugging._PAUSE_S]) == 5
            assert manager.looks == 2

    asyncio.run(run())


def test_more_than_can_be_remembered_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugging, "_RESCAN_S", 0)
    monkeypatch.setattr(plugging, "_MOST_HEARD", 3)
    devices = Devices()

    async def run() -> None:
        async with following(devices) as manager:
            assert await manager.look() == []
            devices.there = {"/sys/a": properties()}
            devices.tell(Batch([("/sys/b", properties("bert", OTHER))] * 4))
            assert await manager.look() == [UUID]

    asyncio.run(run())


def test_a_broken_monitor_ends_the_listening_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    devices = Devices({"/sys/a": properties()})

    async def run() -> None:
        manager = Followed()
        task = asyncio.create_task(plugging.follow(cast("Manager", manager), lambda: devices))
        await manager.look()
        devices.tell(OSError(5, "broken"))
        while devices.batches:
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert "looked for no more" in caplog.text


def test_without_udev_nothing_is_done() -> None:
    asyncio.run(plugging.follow(cast("Manager", Followed()), lambda: None))
