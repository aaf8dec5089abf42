"""A home that is read through its use stays in use until that has ended, and ends it to close."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from machines import Ask, Site, Told

from homemgr import errors
from homemgr.daemon import login, reader
from homemgr.daemon.activity import Activity
from homemgr.daemon.home import Home

UID = 60321


async def read_until_called_off(site: Site, done: list[str]) -> Activity:
    """Have alice's home read by a run that goes on until it is called off, and a moment more."""
    is_read = asyncio.Event()

    async def send(ask: Ask, _told: object) -> Told:
        await ask("use", {})
        is_read.set()
        assert site.runner.cancelled is not None
        await site.runner.cancelled.wait()
        await asyncio.sleep(0.05)
        done.append("ended")
        raise errors.Cancelled

    sending = site.send("alice", send)
    await is_read.wait()
    return sending


def run(root: Path, scenario: Callable[[Site, Home, list[str]], Awaitable[None]]) -> None:
    """A machine where alice uses her home, and what was done to that."""

    async def one() -> None:
        site = Site(root, "alpha", "a" * 32)
        site.services.config = dataclasses.replace(site.services.config, grace_s=0.01)
        await site.start()
        home = await site.add("alice", UID)
        done: list[str] = []

        async def deactivate(_ask: Ask, _told: object) -> Told:
            done.append("deactivated")
            site.mounted.clear()
            return {"is_closed": True}

        site.runner.scripts["deactivate"] = deactivate
        site.mounted.add(home.effective.home_directory)
        home.observe()
        async with asyncio.timeout(10):
            await scenario(site, home, done)
        site.mounted.clear()
        await site.manager.stop()

    asyncio.run(one())


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():
        await asyncio.sleep(0.005)


async def failure_of(step: Awaitable[object]) -> type[errors.HomeError] | None:
    """What it raised. What pytest raises itself a job takes for its end."""
    try:
        await step
    except errors.HomeError as error:
        return type(error)
    return None


@pytest.mark.parametrize("comes_back", [False, True])
def test_the_end_of_the_last_session_waits(tmp_path: Path, comes_back: bool) -> None:
    async def scenario(site: Site, home: Home, done: list[str]) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            await ask("use", {})
            login.abandoned(home)
            await until(lambda: home.ending is None)
            assert done == []
            assert await failure_of(login.release(home)) is errors.HomeBusy
            if comes_back:
                with home.references.add(please_suspend=False):
                    await ask("unuse", {})
                    await asyncio.sleep(0.1)
                    assert done == []
                return {}
            await ask("unuse", {})
            await until(lambda: done == ["deactivated"])
            return {}

        await site.send("alice", send).wait()
        # He who came back has left as well by now.
        await until(lambda: done == ["deactivated"])

    run(tmp_path, scenario)


def test_what_nobody_wanted_to_end_goes_on(tmp_path: Path) -> None:
    """As a home that an administrator has activated, with no session in it."""

    async def scenario(site: Site, _home: Home, done: list[str]) -> None:
        async def send(ask: Ask, _told: object) -> Told:
            await ask("use", {})
            return {}

        await site.send("alice", send).wait()
        await asyncio.sleep(0.1)
        assert done == []

    run(tmp_path, scenario)


def test_a_run_that_does_not_get_on_ends_after_the_last_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who takes nothing any more would keep an encrypted home open."""
    monkeypatch.setattr(reader, "STALLED_S", 0.3)

    async def scenario(site: Site, home: Home, done: list[str]) -> None:
        sending = await read_until_called_off(site, done)
        with home.references.add(please_suspend=False):
            await asyncio.sleep(0.4)
        for number in range(10):
            await asyncio.sleep(0.05)
            sending.note({"phase": "copying", "bytes": number})
        assert (done, home.state) == ([], "active")
        await until(lambda: done == ["ended", "deactivated"])
        with pytest.raises(errors.HomeNotActive, match="has logged out"):
            await sending.wait()
        assert await failure_of(site.send("alice", nothing).wait()) is None

    async def nothing(_ask: Ask, _told: object) -> Told:
        return {}

    run(tmp_path, scenario)


def test_to_deactivate_it_has_the_run_end_first(tmp_path: Path) -> None:
    async def scenario(site: Site, home: Home, done: list[str]) -> None:
        sending = await read_until_called_off(site, done)
        await login.deactivate(home)
        assert done == ["ended", "deactivated"]
        with pytest.raises(errors.HomeNotActive, match="deactivated or locked"):
            await sending.wait()

    run(tmp_path, scenario)


def test_what_was_pulled_out_is_read_no_further(tmp_path: Path) -> None:
    async def scenario(site: Site, home: Home, done: list[str]) -> None:
        sending = await read_until_called_off(site, [])
        # What reads it may hang by then: that is not waited for.
        await login.lose(home)
        assert done == ["deactivated"]
        with pytest.raises(errors.HomeNotActive, match="What has arrived is kept"):
            await sending.wait()

    run(tmp_path, scenario)


def test_a_home_that_is_not_in_use_is_not_read_so(tmp_path: Path) -> None:
    async def scenario(site: Site, home: Home, _done: list[str]) -> None:
        site.mounted.clear()
        home.observe()

        async def send(ask: Ask, _told: object) -> Told:
            assert await failure_of(ask("use", {})) is errors.HomeNotActive
            assert home.reader is None
            return {}

        await site.send("alice", send).wait()

    run(tmp_path, scenario)
