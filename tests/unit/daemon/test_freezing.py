"""Holding the programs of a user still: asked of systemd, and never in the way of locking."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from machines import Ask, Site, Told

from homemgr.daemon import closing, freezing
from homemgr.daemon.freezing import Freezer
from homemgr.wire.messages import BusError


class Systemd:
    """Says what it was asked, and may refuse or never answer."""

    def __init__(self, *, refuses: bool = False, hangs: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self._refuses, self._hangs = refuses, hangs

    async def freeze(self, unit: str) -> None:
        await self._take("freeze", unit)

    async def thaw(self, unit: str) -> None:
        await self._take("thaw", unit)

    async def _take(self, what: str, unit: str) -> None:
        self.asked.append((what, unit))
        if self._refuses:
            raise BusError("org.freedesktop.systemd1.NoSuchUnit", "no such unit")
        if self._hangs:
            await asyncio.Event().wait()


@pytest.mark.parametrize("how", [{}, {"refuses": True}, {"hangs": True}])
def test_the_slice_of_the_user_is_held_and_let_go(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    monkeypatch.setattr(freezing, "_PATIENCE_S", 0.01)
    systemd = Systemd(**how)

    async def both() -> None:
        await Freezer(systemd).hold(60001)
        await Freezer(systemd).let_go(60001)
        await Freezer(None).hold(60001)

    asyncio.run(both())
    assert systemd.asked == [("freeze", "user-60001.slice"), ("thaw", "user-60001.slice")]


@pytest.mark.parametrize(("is_mounted", "is_locked"), [(True, False), (True, True), (False, False)])
def test_who_is_held_by_a_service_that_was_killed_is_let_go_by_the_next(
    tmp_path: Path, is_mounted: bool, is_locked: bool
) -> None:
    async def scenario() -> None:
        site = Site(tmp_path, "alpha", "a" * 32)
        await site.start()
        home, systemd = await site.add("alice", 60001), Systemd()

        async def settle(_ask: Ask, _told: object) -> Told:
            return {"is_closed": True, "is_locked": is_locked}

        site.runner.scripts["settle"] = settle
        site.services.freezer = Freezer(systemd)
        if is_mounted:
            site.mounted.add(home.effective.home_directory)
        home.observe()
        await closing.settle(home)
        is_let_go = is_mounted and not is_locked
        assert systemd.asked == ([("thaw", "user-60001.slice")] if is_let_go else [])
        await site.manager.stop()

    asyncio.run(scenario())
