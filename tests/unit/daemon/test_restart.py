"""What a service finds that comes after another: sessions go on, whatever that was about to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from machines import Ask, Site, Told

from homemgr.daemon import locking, session
from homemgr.daemon.freezing import Freezer
from homemgr.daemon.home import Home

ALICE = 60321


class Thawing:
    """systemd, as far as it lets programs go on."""

    def __init__(self) -> None:
        self.units: list[str] = []

    async def freeze(self, unit: str) -> None:
        assert not self.units, unit

    async def thaw(self, unit: str) -> None:
        self.units.append(unit)


async def alice_on(site: Site, **binding: str) -> Home:
    await site.start()
    home = await site.add("alice", ALICE)
    await home.store_record(home.record.with_binding(site.machine_id, binding))  # type: ignore[arg-type]
    return home


@pytest.mark.parametrize(("is_locked", "thawed"), [(False, ["user-60321.slice"]), (True, [])])
def test_programs_held_still_for_a_lock_that_never_came_go_on(
    tmp_path: Path, *, is_locked: bool, thawed: list[str]
) -> None:
    systemd = Thawing()

    async def settle(_ask: Ask, _arguments: Mapping[str, object]) -> Told:
        return {"is_closed": True, "is_locked": is_locked}

    async def scenario() -> None:
        site = Site(tmp_path, "box", "a" * 32)
        home = await alice_on(site, storage="luks")
        site.mounted.add(home.effective.home_directory)
        home.close()
        site.start_new()
        site.runner.scripts["settle"] = settle
        site.services.freezer = Freezer(systemd)
        await site.start()
        assert site.home("alice").is_locked is is_locked
        site.home("alice").close()

    asyncio.run(scenario())
    assert systemd.units == thawed


def test_programs_held_still_go_on_if_the_lock_is_ended_with_the_service(tmp_path: Path) -> None:
    systemd = Thawing()

    async def scenario() -> None:
        site = Site(tmp_path, "box", "a" * 32)
        home = await alice_on(site, storage="luks")
        site.mounted.add(home.effective.home_directory)
        site.services.freezer = Freezer(systemd)
        has_begun = asyncio.Event()

        async def lock(_ask: Ask, _arguments: Mapping[str, object]) -> Told:
            has_begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        site.runner.scripts["lock"] = lock
        locking_it = asyncio.ensure_future(locking.lock(home))
        await has_begun.wait()
        locking_it.cancel()
        await asyncio.wait({locking_it})
        assert locking_it.cancelled()
        assert not home.is_locked
        home.close()

    asyncio.run(scenario())
    assert systemd.units == ["user-60321.slice"]


def test_a_session_that_has_still_to_ask_for_the_password_keeps_its_reference(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        site = Site(tmp_path, "box", "a" * 32)
        home = await alice_on(site)
        with session.reference_unrestricted(home, please_suspend=False):
            await site.restart()
            assert site.home("alice").references.held
        await asyncio.sleep(0.01)
        assert not site.home("alice").references.held
        assert site.home("alice").references.files() == []
        # One that went while there was no service leaves nothing either.
        reference = session.reference_unrestricted(site.home("alice"), please_suspend=True)
        site.home("alice").close()
        reference.close()
        await site.restart()
        assert site.home("alice").references.files() == []

    asyncio.run(scenario())
