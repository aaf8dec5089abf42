"""References keep a home active as long as somebody holds one, over a restart of the daemon too."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.daemon import references
from homemgr.daemon.references import References
from homemgr.files import Fd


class Watched:
    """References of one user and how often the last one went."""

    def __init__(self, directory: Path) -> None:
        self.ended = 0
        self.references = References(str(directory), "alice", self._gone)

    def _gone(self) -> None:
        self.ended += 1

    async def settle(self, is_so: Callable[[], bool]) -> None:
        """Let the loop turn until ``is_so``, at most two seconds."""
        async with asyncio.timeout(2):
            while not is_so():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Watched]:
    """References that are closed at the end."""
    one = Watched(directory)
    try:
        yield one
    finally:
        one.references.close()


async def turns() -> None:
    """A few rounds of the loop, for what must not happen."""
    for _ in range(10):
        await asyncio.sleep(0.002)


def test_the_last_one_ends_the_use_the_others_do_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as one:
            first = one.references.add(please_suspend=False)
            second = one.references.add(please_suspend=True)
            first.close()
            await turns()
            assert one.references.held
            assert one.ended == 0
            second.close()
            await one.settle(lambda: one.ended == 1)
            assert not one.references.held

    asyncio.run(run())


def test_a_holder_that_dies_lets_go(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as one:
            reference = one.references.add(please_suspend=False)
            child = os.posix_spawn(
                "/bin/sleep",
                ["sleep", "1000"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, reference.fileno(), 9)],
            )
            reference.close()
            await turns()
            assert one.ended == 0
            os.kill(child, 9)
            os.waitpid(child, 0)
            await one.settle(lambda: one.ended == 1)

    asyncio.run(run())


def test_what_a_holder_writes_is_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as one:
            with one.references.add(please_suspend=False) as reference:
                os.write(reference.fileno(), b"x" * 5000)
                await turns()
                assert one.references.held
                assert one.ended == 0
            await one.settle(lambda: one.ended == 1)

    asyncio.run(run())


def test_a_new_daemon_takes_them_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as before:
            reference = before.references.add(please_suspend=False)
        async with watched(tmp_path) as after:
            assert not after.references.recover()
            assert after.references.held
            reference.close()
            await after.settle(lambda: after.ended == 1)

    asyncio.run(run())


def test_a_new_daemon_sees_that_all_went_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as before:
            reference = before.references.add(please_suspend=False)
        reference.close()
        async with watched(tmp_path) as after:
            assert after.references.recover()
            assert not after.references.held

    asyncio.run(run())


def test_a_home_used_without_references_is_not_abandoned(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as one:
            assert not one.references.recover()

    asyncio.run(run())


def test_fifos_are_for_root_and_forgotten_at_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with watched(tmp_path) as one:
            reference: Fd = one.references.add(please_suspend=False)
            fifo = tmp_path / "alice.dont-suspend"
            status = fifo.stat()
            assert stat.S_ISFIFO(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
            one.references.forget()
            assert fifo.exists(), "still held"
            reference.close()
            await one.settle(lambda: one.ended == 1)
            one.references.forget()
            assert not fifo.exists()

    asyncio.run(run())


def test_one_that_could_not_be_made_keeps_nothing_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(path: str, flags: int) -> int:
        if flags & os.O_WRONLY:
            raise OSError(errno.ENFILE, "no room")
        return os_open(path, flags)

    os_open = os.open

    async def run() -> None:
        async with watched(tmp_path) as one:
            with monkeypatch.context() as patch:
                patch.setattr(references.os, "open", no_room)
                with pytest.raises(errors.SystemFailure):
                    one.references.add(please_suspend=False)
            assert not one.references.held

    asyncio.run(run())
