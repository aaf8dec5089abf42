"""Files handed over: who lets readers hang has no more of them, and everybody else has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import cast

import pytest

from homemgr import errors
from homemgr.daemon import blobs
from homemgr.daemon.blobs import MAX_OF_ALL, MAX_OF_ONE, Uploads
from homemgr.daemon.jobs import JobRunner
from homemgr.files import Fd


class Reading:
    """A runner whose workers read on until they are let go."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.seen: list[list[int]] = []

    async def run(
        self, verb: str, arguments: Mapping[str, object], fds: Sequence[int], *, about: str
    ) -> dict[str, object]:
        """Wait."""
        assert (verb, about, arguments["names"]) == ("copy", "blobs of a client", ["avatar"])
        self.seen.append([os.fstat(fd).st_ino for fd in fds])
        await self.may_end.wait()
        return {}


@contextmanager
def uploads() -> Iterator[tuple[Uploads, Reading, dict[str, Fd]]]:
    """A fresh one, and something to hand over."""
    reading = Reading()
    with Fd(os.memfd_create("source")) as source:
        yield Uploads(cast("JobRunner", reading)), reading, {"avatar": source}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "COPY_S", 0.02)


async def is_refused(taking: Uploads, uid: int, source: Mapping[str, Fd]) -> bool:
    """Whether there is no reader left for a user; else one more hangs."""
    try:
        async with taking.own_copies(uid, source):
            raise AssertionError
    except errors.TooManyOperations:
        return True
    except errors.InvalidArgs:
        return False


def test_a_worker_that_hangs_counts_until_it_ends() -> None:
    async def run() -> None:
        with uploads() as (taking, reading, source):
            for _ in range(MAX_OF_ONE):
                assert not await is_refused(taking, 1000, source)
            assert await is_refused(taking, 1000, source)
            assert not await is_refused(taking, 1001, source)
            reading.may_end.set()
            await asyncio.sleep(0.01)
            async with taking.own_copies(1000, source) as copies:
                assert list(copies) == ["avatar"]
                # Its own descriptors: the client's are closed with its call.
                assert reading.seen[-1] == [
                    os.fstat(fd.fileno()).st_ino for fd in (source["avatar"], copies["avatar"])
                ]

    before = os.listdir("/proc/self/fd")
    asyncio.run(run())
    assert os.listdir("/proc/self/fd") == before


def test_copies_count_until_the_call_is_answered() -> None:
    async def run() -> None:
        with uploads() as (taking, reading, source):
            reading.may_end.set()
            async with AsyncExitStack() as held:
                for _ in range(MAX_OF_ONE):
                    await held.enter_async_context(taking.own_copies(1000, source))
                with pytest.raises(errors.TooManyOperations):
                    await held.enter_async_context(taking.own_copies(1000, source))
            async with taking.own_copies(1000, source):
                pass

    asyncio.run(run())


def test_all_together_have_a_limit_and_root_no_other() -> None:
    async def run() -> None:
        with uploads() as (taking, _, source):
            refused = await asyncio.gather(
                *(is_refused(taking, 0, source) for _ in range(MAX_OF_ALL + 1))
            )
            assert refused.count(True) == 1

    asyncio.run(run())
