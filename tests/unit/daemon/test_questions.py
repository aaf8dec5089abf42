"""Questions of a user about his home: as many as he likes, and never all workers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from homemgr import errors
from homemgr.daemon import callers, snapshots
from homemgr.daemon.config import Config
from homemgr.daemon.home import MAX_QUEUE, MAX_QUEUE_OF_OTHERS, Home, Services
from homemgr.daemon.questions import MAX_AT_ONCE, MAX_WAITING
from homemgr.daemon.states import Operation
from homemgr.daemon.usage import usage
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.signature import Keyring


class Answering:
    """What a home needs of its daemon, whose workers answer when they may."""

    def __init__(self, directory: Path) -> None:
        self.config = Config(runtime_directory=str(directory))
        self.machine = Machine("0" * 32, "box", "/home")
        self.keyring = Keyring({})
        self.runner = self
        self.may_answer = asyncio.Event()
        self.running = 0

    def is_mounted(self, _home_directory: str) -> bool:
        return False

    async def run(
        self, _verb: str, _arguments: Mapping[str, object], **_: object
    ) -> dict[str, object]:
        """Wait."""
        self.running += 1
        await self.may_answer.wait()
        self.running -= 1
        return {"snapshots": []}


def home_of(services: Answering) -> Home:
    record = UserRecord({"userName": "alice", "disposition": "regular"})
    bound = record.with_binding("0" * 32, {"uid": 60123, "imagePath": "/nowhere/alice.homedir"})
    return Home(cast("Services", services), bound, is_fixated=True)


def test_who_asks_again_and_again_has_few_workers(tmp_path: Path) -> None:
    async def run() -> None:
        services = Answering(tmp_path)
        home, other = home_of(services), home_of(services)
        asked: list[asyncio.Future[object]] = []
        for number in range(MAX_AT_ONCE + MAX_WAITING + 1):
            question = usage(home, counts_files=True) if number % 2 else snapshots.listed(home)
            asked.append(asyncio.ensure_future(question))
        await asyncio.sleep(0)
        assert services.running == MAX_AT_ONCE
        # Whose home is another one is not concerned.
        elsewhere = asyncio.ensure_future(snapshots.listed(other))
        await asyncio.sleep(0)
        assert services.running == MAX_AT_ONCE + 1
        services.may_answer.set()
        answers = await asyncio.gather(*asked, elsewhere, return_exceptions=True)
        refused = [isinstance(answer, errors.TooManyOperations) for answer in answers]
        assert refused.count(True) == 1
        assert services.running == 0

    asyncio.run(run())


def test_strangers_that_wait_for_a_home_leave_room_for_who_logs_in(tmp_path: Path) -> None:
    async def wait_for(home: Home, uid: int) -> None:
        callers.origin.set(uid)
        async with home.exclusively(Operation.INSPECT, queued=True):
            pass

    async def run() -> None:
        home = home_of(Answering(tmp_path))
        async with home.exclusively(Operation.INSPECT):
            others = [asyncio.ensure_future(wait_for(home, 1000)) for _ in range(MAX_QUEUE)]
            await asyncio.sleep(0)
            assert sum(one.done() for one in others) == MAX_QUEUE - MAX_QUEUE_OF_OTHERS
            logins = [asyncio.ensure_future(wait_for(home, 0)) for _ in range(MAX_QUEUE)]
            await asyncio.sleep(0)
            assert sum(one.done() for one in logins) == MAX_QUEUE_OF_OTHERS
        answers = await asyncio.gather(*others, *logins, return_exceptions=True)
        assert answers.count(None) == MAX_QUEUE
        assert {type(answer) for answer in answers} == {type(None), errors.TooManyOperations}

    asyncio.run(run())
