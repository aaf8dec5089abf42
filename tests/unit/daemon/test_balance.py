"""Homes in use get other sizes beside all else: in which order, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.daemon import balance, locking, login, snapshots
from homemgr.daemon.activity import Activity
from homemgr.daemon.home import Home
from homemgr.daemon.snapshot_options import CreateOptions
from homemgr.daemon.states import Operation, Resting
from tests.unit.daemon.machines import Ask, Site, Told

GIB = 1 << 30
FREE = 10 * GIB
MACHINE_ID = "1" * 32


@dataclass
class Disk:
    """What workers find, and what was done to homes, in order."""

    sizes: dict[str, int]
    done: list[tuple[str, int]] = field(default_factory=list)
    #: What fitting a home waits for, by name.
    waiting: dict[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)
    shrinks: bool = True
    asked: int = 0

    async def weigh(self, _ask: Ask, told: Mapping[str, object]) -> Told:
        self.asked += 1
        size = self.sizes[name_in(told)]
        more = {"free": FREE, "disk": 1, "shrinks": self.shrinks}
        return {"size": size, "used": GIB, "least": GIB, "held": GIB, **more}

    async def fit(self, _ask: Ask, told: Mapping[str, object]) -> Told:
        name, size = name_in(told), told["size"]
        assert isinstance(size, int)
        if name in self.waiting:
            await self.waiting[name]()
        self.sizes[name] = size
        self.done.append((name, size))
        return {"size": size}


def name_in(told: Mapping[str, object]) -> str:
    record = told["record"]
    assert isinstance(record, dict)
    return str(record["userName"])


async def start(root: Path, disk: Disk, **fields: object) -> Site:
    """A machine whose homes in images are all in use."""
    site = Site(root, "alpha", MACHINE_ID)
    site.runner.scripts |= {"weigh": disk.weigh, "fit": disk.fit}
    for number, name in enumerate(disk.sizes):
        home = await site.add(name, 60101 + number, **fields)
        binding = {"storage": "luks", "imagePath": str(site.base / f"{name}.home")}
        home.replace_record(home.record.with_binding(MACHINE_ID, binding))  # type: ignore[arg-type]
        site.mounted.add(home.effective.home_directory)
        home.observe()
    site.manager.balance.start()
    return site


def run(work: Awaitable[None]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(work, 20)

    asyncio.run(in_time())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_what_some_give_back_is_there_before_others_grow(tmp_path: Path) -> None:
    disk = Disk({"anna": GIB, "bert": 90 * GIB, "carl": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk)
        await site.manager.balance.now()
        part = GIB + FREE * 100 // 320
        assert disk.done[0][0] == "bert"
        assert sorted(disk.done) == [(name, part // 4096 * 4096) for name in sorted(disk.sizes)]
        # Nothing is to be done the next time.
        await site.manager.balance.now()
        assert len(disk.done) == 3
        await site.manager.balance.stop()

    run(work())


@pytest.mark.parametrize(
    ("shrinks", "fields"),
    [(False, {}), (True, {"rebalanceWeight": 0}), (True, {"diskSize": GIB})],
)
def test_where_nobody_takes_part_it_says_so(
    tmp_path: Path, *, shrinks: bool, fields: dict[str, object]
) -> None:
    disk = Disk({"anna": GIB}, shrinks=shrinks)

    async def work() -> None:
        site = await start(tmp_path, disk, **fields)
        with pytest.raises(errors.RebalanceNotNeeded):
            await site.manager.balance.now()
        assert disk.done == []
        await site.manager.balance.stop()

    run(work())


def test_who_is_busy_stays_as_he_is_and_others_get_their_share(tmp_path: Path) -> None:
    disk = Disk({"anna": GIB, "bert": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk)
        async with site.home("anna").exclusively(Operation.UPDATE):
            await site.manager.balance.now()
        assert [name for name, _ in disk.done] == ["bert"]
        await site.manager.balance.stop()

    run(work())


def test_whoever_wants_a_home_does_not_wait_for_its_size(tmp_path: Path) -> None:
    disk = Disk({"anna": GIB, "bert": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk)
        anna = site.home("anna")
        begun = asyncio.Event()

        async def until_called_off() -> None:
            begun.set()
            assert site.runner.cancelled is not None
            await called_off_of(anna).wait()
            raise errors.Cancelled

        disk.waiting["anna"] = until_called_off
        sharing = asyncio.ensure_future(site.manager.balance.now())
        await begun.wait()
        # Not even one that is never queued is told that the home is busy.
        async with anna.exclusively(Operation.UPDATE):
            await sharing
        assert [name for name, _ in disk.done] == ["bert"]
        await site.manager.balance.stop()

    run(work())


def called_off_of(home: Home) -> asyncio.Event:
    event = home._called_off
    assert event is not None
    return event


def test_one_that_takes_its_time_keeps_nobody_from_his_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance, "_PATIENCE_S", 0.2)
    disk = Disk({"anna": 90 * GIB, "bert": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk)
        gate = asyncio.Event()
        disk.waiting["anna"] = gate.wait
        await site.manager.balance.now()
        assert [name for name, _ in disk.done] == ["bert"]
        # It was left to go on.
        gate.set()
        await until(lambda: len(disk.done) == 2)
        await site.manager.balance.stop()

    run(work())


def test_a_home_grows_to_what_its_record_says_once_its_login_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance, "_AFTER_LOGIN_S", (0.01, 0.01))
    disk = Disk({"anna": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk, diskSize=2 * GIB)
        anna = site.home("anna")
        async with anna.exclusively(Operation.UPDATE):
            site.services.activated(anna)
            await asyncio.sleep(0.015)
        await until(lambda: disk.done)
        assert disk.done == [("anna", 2 * GIB)]
        await site.manager.balance.stop()

    run(work())


def test_who_asks_right_after_a_login_has_that_home_take_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance, "_AFTER_LOGIN_S", (0.01,))
    disk = Disk({"anna": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk, diskSize=2 * GIB, rebalanceWeight=100)
        begun, gate = asyncio.Event(), asyncio.Event()

        async def grow() -> None:
            begun.set()
            await gate.wait()

        disk.waiting["anna"] = grow
        site.services.activated(site.home("anna"))
        await begun.wait()
        sharing = asyncio.ensure_future(site.manager.balance.now())
        await asyncio.sleep(0.01)
        gate.set()
        await sharing
        assert disk.sizes["anna"] > 8 * GIB
        await site.manager.balance.stop()

    run(work())


def test_many_logins_are_one_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_AFTER_LOGIN_S", (0.01,))
    disk = Disk({"anna": GIB + FREE * 100 // 120 // 4096 * 4096})

    async def work() -> None:
        site = await start(tmp_path, disk)
        for _ in range(20):
            site.services.activated(site.home("anna"))
        await until(lambda: disk.asked)
        for _ in range(20):
            site.services.activated(site.home("anna"))
            await asyncio.sleep(0.005)
        assert disk.asked == 1
        # Who asks for it does not wait.
        await site.manager.balance.now()
        assert disk.asked == 2
        await site.manager.balance.stop()

    run(work())


async def leave(site: Site) -> list[str]:
    """Have anna logged out of a home that then gets smaller; gives who is closed after that."""
    anna, begun, closed = site.home("anna"), asyncio.Event(), list[str]()

    async def deactivate(_ask: Ask, _told: Mapping[str, object]) -> Told:
        site.mounted.clear()
        anna.observe()
        begun.set()
        await called_off_of(anna).wait()
        closed.append("anna")
        return {"is_closed": True}

    site.runner.scripts["deactivate"] = deactivate
    await login.deactivate(anna)
    await begun.wait()
    assert (anna.resting, closed) == (Resting.INACTIVE, [])
    return closed


def test_a_home_that_still_gets_smaller_is_closed_before_the_machine_sleeps(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        site = await start(tmp_path, Disk({"anna": GIB}), autoResizeMode="shrink-and-grow")
        closed = await leave(site)
        # Its key is in memory until then.
        await locking.lock_all(site.manager.registry)
        assert closed == ["anna"]
        await site.manager.balance.stop()

    run(work())


def test_a_snapshot_does_not_wait_until_its_home_is_small(tmp_path: Path) -> None:
    async def work() -> None:
        site = await start(tmp_path, Disk({"anna": GIB}), autoResizeMode="shrink-and-grow")
        closed = await leave(site)

        async def snapshot(_ask: Ask, _told: Mapping[str, object]) -> Told:
            # As a worker does that wants the image for itself.
            await until(lambda: closed)
            return {"snapshot": {}}

        site.runner.scripts["snapshot"] = snapshot
        options = CreateOptions("", "", full_copy=False)

        async def take(activity: Activity) -> Told:
            return await snapshots.create(site.home("anna"), activity, options, by_uid=0)

        taken = site.manager.activities.begin("snapshot", "anna", ":1.1", 0, take)
        await taken.wait()
        await site.manager.balance.stop()

    run(work())


@pytest.mark.parametrize("is_locked", [False, True])
def test_who_is_out_again_before_his_home_could_grow_is_nobodys_concern(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_locked: bool,
) -> None:
    monkeypatch.setattr(balance, "_AFTER_LOGIN_S", (0.01,))
    disk = Disk({"anna": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk, diskSize=2 * GIB)
        anna = site.home("anna")
        site.services.activated(anna)
        if is_locked:
            anna.note_locked(is_locked=True)
        else:
            site.mounted.clear()
        await asyncio.sleep(0.05)
        assert [r.message for r in caplog.records if "keeps its size" in r.message] == []
        assert disk.done == []
        await site.manager.balance.stop()

    run(work())


def test_while_many_jobs_run_nobody_who_logs_in_waits_for_sizes(tmp_path: Path) -> None:
    disk = Disk({"anna": GIB})

    async def work() -> None:
        site = await start(tmp_path, disk, autoResizeMode="shrink-and-grow")
        site.runner.is_busy = True
        await site.manager.balance.now()
        assert disk.done == []
        shrinks = []

        async def deactivate(_ask: Ask, told: Mapping[str, object]) -> Told:
            shrinks.append(told["shrinks"])
            site.mounted.clear()
            return {"is_closed": True}

        site.runner.scripts["deactivate"] = deactivate
        await login.deactivate(site.home("anna"))
        assert shrinks == [False]
        await site.manager.balance.stop()

    run(work())
