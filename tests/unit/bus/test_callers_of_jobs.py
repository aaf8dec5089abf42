"""Who begins jobs is watched, once, for as long as he is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from homemgr.bus.jobs import Jobs
from homemgr.daemon.activity import Activities, Activity
from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Call
from homemgr.wire.peer import Peer


class Bus:
    """As much of a connection as jobs need."""

    def __init__(self) -> None:
        self.watching: list[Callable[[], object]] = []
        self.is_there = True

    def watch(self, _name: str, callback: Callable[[], object]) -> Callable[[], None]:
        self.watching.append(callback)
        return lambda: self.watching.remove(callback)

    async def call(self, *_target: object) -> list[object]:
        return [self.is_there]

    def emit(self, *_signal: object, destination: str) -> None:
        assert destination == ":1.5"


class Caller:
    """A call of one who has nothing to say."""

    sender = ":1.5"

    async def caller(self) -> Peer:
        return Peer(1000, 1)


async def nothing(_activity: Activity, _fds: Sequence[int]) -> dict[str, object]:
    return {}


def test_a_caller_of_many_jobs_is_watched_once() -> None:
    async def run() -> None:
        bus, activities = Bus(), Activities()
        jobs = Jobs(cast("Connection", bus), activities)

        async def begin() -> None:
            await jobs.begin(cast("Call", Caller()), "snapshot", "alice", (), nothing)
            await asyncio.sleep(0.001)

        for _ in range(20):
            await begin()
        assert len(bus.watching) == 1
        assert list(activities)
        (left,) = bus.watching
        bus.watching.clear()
        left()
        assert not list(activities)
        # Who comes back is another one, and who is gone already is not waited for.
        await begin()
        assert len(bus.watching) == 1
        bus.is_there = False
        await begin()
        assert bus.watching == []
        assert not list(activities)

    asyncio.run(run())
