"""Holding the programs of a user still: asked of systemd, and never in the way of locking."""

from __future__ import annotations

import asyncio

import pytest

from homemgr.daemon import freezing
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
