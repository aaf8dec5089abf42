"""Work whose second half nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from homemgr import errors
from homemgr.daemon.unwaited import Told, until_told

Work = Callable[[Told], Coroutine[None, None, None]]


class Halves:
    """Work in two halves, each of which is let go on by a test."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.said: list[str] = []
        self.error: Exception | None = None

    async def work(self, told: Told) -> None:
        try:
            await self.first.wait()
            if self.error is not None:
                raise self.error
            told()
            await self.second.wait()
            self.said.append("done")
        except asyncio.CancelledError:
            self.said.append("ended")
            raise


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_its_caller_goes_when_he_is_told_and_it_goes_on() -> None:
    async def run() -> None:
        halves = Halves()
        halves.first.set()
        await until_told(halves.work)
        assert halves.said == []
        halves.second.set()
        await soon(lambda: halves.said == ["done"])

    asyncio.run(run())


def test_what_goes_wrong_before_that_is_the_callers() -> None:
    async def run() -> None:
        halves = Halves()
        halves.first.set()
        halves.error = errors.HomeBusy("It is.")
        with pytest.raises(errors.HomeBusy):
            await until_told(halves.work)

    asyncio.run(run())


@pytest.mark.parametrize("is_told", [False, True])
def test_who_is_ended_ends_it_unless_his_part_is_over(*, is_told: bool) -> None:
    async def run() -> None:
        halves = Halves()
        calling = asyncio.ensure_future(until_told(halves.work))
        await asyncio.sleep(0.01)
        if is_told:
            halves.first.set()
            await soon(calling.done)
        calling.cancel()
        if not is_told:
            await soon(lambda: halves.said == ["ended"])
        halves.second.set()
        await asyncio.sleep(0.01)
        assert halves.said == (["done"] if is_told else ["ended"])

    asyncio.run(run())
