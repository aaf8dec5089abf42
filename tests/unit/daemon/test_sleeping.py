"""The machine sleeps when homes are locked, or when that takes too long, and not before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from homemgr.daemon.sleeping import SleepGuard
from homemgr.files import Fd
from homemgr.wire.messages import BusError


class Logind:
    """Gives locks, and says what was done to them."""

    def __init__(self, longest_delay_s: float = 60.0) -> None:
        self.delay_s = longest_delay_s
        self.refuses = False
        self.asked = 0
        self.reads: list[int] = []
        self.sleeping: Callable[[bool], object] = print
        self.appeared: Callable[[], object] = print

    async def follow(
        self, sleeping: Callable[[bool], object], appeared: Callable[[], object]
    ) -> None:
        self.sleeping, self.appeared = sleeping, appeared

    async def delay_sleep(self, who: str, why: str) -> Fd:
        assert who == "homemgrd"
        assert why
        self.asked += 1
        if self.refuses:
            raise BusError("org.freedesktop.login1.OperationInProgress", "about to sleep")
        read, write = os.pipe()
        os.set_blocking(read, False)
        self.reads.append(read)
        return Fd(write)

    async def longest_delay_s(self) -> float:
        return self.delay_s

    @property
    def held(self) -> list[bool]:
        """Of each lock that was given, whether it is held."""
        return [not _is_over(read) for read in self.reads]


def _is_over(read: int) -> bool:
    try:
        return os.read(read, 1) == b""
    except BlockingIOError:
        return False


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():
            await asyncio.sleep(0.001)


def run(
    test: Callable[[Logind, SleepGuard], Awaitable[None]],
    lock_all: Callable[[], Awaitable[None]],
    logind: Logind | None = None,
) -> Logind:
    """Run ``test`` with a guard that has started; nothing may be held after its end."""
    logind = logind or Logind()

    async def whole() -> None:
        guard = SleepGuard(logind, lock_all)
        await guard.start()
        await until(lambda: bool(logind.asked))
        await test(logind, guard)
        await guard.stop()
        assert not any(logind.held)

    asyncio.run(whole())
    for read in logind.reads:
        os.close(read)
    return logind


def test_sleep_waits_until_all_is_locked() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def lock_all() -> None:
        began.set()
        await may_end.wait()

    async def test(logind: Logind, _guard: SleepGuard) -> None:
        await until(lambda: logind.held == [True])
        logind.sleeping(True)
        await began.wait()
        assert logind.held == [True]
        may_end.set()
        await until(lambda: logind.held == [False])
        logind.sleeping(False)
        await until(lambda: logind.held == [False, True])

    run(test, lock_all)


def test_sleep_waits_no_longer_than_logind_does_and_locking_goes_on() -> None:
    may_end, has_ended = asyncio.Event(), asyncio.Event()

    async def lock_all() -> None:
        await may_end.wait()
        has_ended.set()

    async def test(logind: Logind, _guard: SleepGuard) -> None:
        logind.sleeping(True)
        await until(lambda: logind.held == [False])
        assert not has_ended.is_set()
        may_end.set()
        await until(has_ended.is_set)

    run(test, lock_all, Logind(longest_delay_s=0.01))


def test_waking_up_at_once_is_heeded_after_what_came_before() -> None:
    locked: list[bool] = []

    async def lock_all() -> None:
        await asyncio.sleep(0)
        locked.append(True)

    async def test(logind: Logind, _guard: SleepGuard) -> None:
        for _ in range(3):
            logind.sleeping(True)
            logind.sleeping(False)
        await until(lambda: logind.held == [False, False, False, True])
        assert len(locked) == 3

    run(test, lock_all)


def test_a_bug_in_locking_keeps_no_machine_awake() -> None:
    async def lock_all() -> None:
        raise ZeroDivisionError

    async def test(logind: Logind, _guard: SleepGuard) -> None:
        logind.sleeping(True)
        logind.sleeping(False)
        await until(lambda: logind.held == [False, True])

    run(test, lock_all)


def test_a_logind_that_comes_later_is_asked_and_a_refusal_is_no_end() -> None:
    async def lock_all() -> None:
        raise AssertionError

    async def test(logind: Logind, _guard: SleepGuard) -> None:
        # Nothing is held, so nothing is to be done before sleep.
        logind.sleeping(True)
        logind.sleeping(False)
        await until(lambda: logind.asked == 2)
        logind.refuses = False
        logind.appeared()
        await until(lambda: logind.held == [True])
        logind.appeared()
        await until(lambda: logind.held == [False, True])

    logind = Logind()
    logind.refuses = True
    run(test, lock_all, logind)
