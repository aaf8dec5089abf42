"""Conversions of a daemon whose workers are scripts: who is called off, and who meets whom."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from machines import Ask, Site, Told

from homemgr import errors
from homemgr.daemon import snapshots
from homemgr.daemon.activity import Activity
from homemgr.daemon.classic_states import ClassicState, ClassicStore
from homemgr.daemon.conversion_options import ConvertOptions
from homemgr.daemon.conversion_states import (
    KEPT,
    MAKING,
    SWITCHING,
    Conversion,
    ConversionStore,
    Side,
)
from homemgr.daemon.home import now_usec
from homemgr.daemon.snapshot_options import CreateOptions, RestoreOptions
from homemgr.daemon.states import Operation
from homemgr.record.secret import Secret

MADE = {"was": "1:1", "tree": "2:2", "binding": {}, "is_renamed": False}


class World:
    """One machine with alice; notes what its workers did."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.done: list[str] = []
        #: What a worker finds in the place of the new home.
        self.image = "2:2"
        answers: dict[str, Callable[[], Told]] = {
            "convert": lambda: dict(MADE),
            "returnable": lambda: {"image": self.image},
            "switch": dict,
            "clear": dict,
            "snapshot-files": lambda: {"kept": []},
            "snapshot-forget": dict,
        }
        for verb, answer in answers.items():
            site.runner.scripts[verb] = self._script(verb, answer)

    def _script(
        self, verb: str, answer: Callable[[], Told]
    ) -> Callable[[Ask, Mapping[str, object]], Awaitable[Told]]:
        async def script(_ask: Ask, arguments: Mapping[str, object]) -> Told:
            self.done.append(" ".join([verb, os.path.basename(str(arguments.get("room", "")))]))
            return answer()

        return script

    @property
    def on_disk(self) -> Told | None:
        """The state that was saved."""
        path = Path(self.site.services.config.transfer_directory, "convert-alice.json")
        return json.loads(path.read_text()) if path.exists() else None

    def begin(self, **options: object) -> asyncio.Task[object]:
        home, asked = self.site.home("alice"), ConvertOptions(**options)  # type: ignore[arg-type]
        activity = self.site.manager.activities.begin(
            "convert",
            "alice",
            ":1.1",
            0,
            lambda a: self.site.manager.conversions.convert(a, home, asked, Secret()),
        )
        assert activity._task is not None
        self.task = activity._task
        return asyncio.ensure_future(activity.wait())


def run(root: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        site = Site(root, "alpha", "a" * 32)
        await site.start()
        await site.add("alice", 60321)
        async with asyncio.timeout(20):
            await scenario(World(site))
        await site.manager.stop()

    asyncio.run(whole())


def test_who_is_cancelled_at_the_switch_has_it_done_and_the_home_kept_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        loop, saving, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        save = ConversionStore.save

        def slowly(store: ConversionStore, state: Conversion) -> None:
            save(store, state)
            if state.phase == SWITCHING:
                loop.call_soon_threadsafe(saving.set)
                go_on.wait(10)

        monkeypatch.setattr(ConversionStore, "save", slowly)
        home = world.site.home("alice")
        waiting = world.begin(storage="subvolume")
        await saving.wait()
        # As is done to who does not end long after he was asked to.
        world.task.cancel()
        await asyncio.wait([world.task], timeout=0.05)
        with pytest.raises(errors.TransferBusy):
            home.check_lease(Operation.ACTIVATE)
        with pytest.raises(errors.HomeBusy, match="an earlier request, to convert it"):
            async with home.exclusively(Operation.CONVERT):
                pass
        go_on.set()
        result = await waiting
        assert isinstance(result, dict)
        assert result["phase"] == "kept"
        assert world.on_disk is not None
        assert world.on_disk["phase"] == "kept"
        assert home.effective.storage == "subvolume"
        home.check_lease(Operation.ACTIVATE)

    run(tmp_path, scenario)


def test_a_switch_that_could_not_be_noted_is_not_done_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        save = ConversionStore.save

        def failing(store: ConversionStore, state: Conversion) -> None:
            save(store, state)
            if state.phase == SWITCHING:
                raise errors.NoDiskSpace

        monkeypatch.setattr(ConversionStore, "save", failing)
        with pytest.raises(errors.NoDiskSpace):
            await world.begin(storage="subvolume")
        assert world.on_disk is None
        assert [verb.split()[0] for verb in world.done] == ["convert", "clear"]
        world.site.home("alice").check_lease(Operation.ACTIVATE)

    run(tmp_path, scenario)


def test_of_confirming_and_undoing_only_one_happens(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversions, home = world.site.manager.conversions, world.site.home("alice")
        await world.begin(storage="subvolume")
        assert world.on_disk is not None
        rooms = [os.path.basename(world.on_disk[side]["room"]) for side in ("old", "new")]
        del world.done[:]
        outcomes: list[object] = await asyncio.gather(
            conversions.undo(home, force=False),
            conversions.confirm("alice"),
            return_exceptions=True,
        )
        undone, confirmed = outcomes
        assert undone is None
        assert isinstance(confirmed, errors.NoSuchHome)
        assert world.done == ["returnable ", "switch ", f"clear {rooms[1]}"]
        assert world.on_disk is None

    run(tmp_path, scenario)


def test_files_come_back_neither_behind_a_conversion_nor_unnoticed_after_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        home, going_on, begun = world.site.home("alice"), asyncio.Event(), asyncio.Event()

        async def slowly(_ask: Ask, _told: object) -> Told:
            begun.set()
            await going_on.wait()
            return dict(MADE)

        async def restore() -> None:
            asked = RestoreOptions("one", ("note",), force=False)
            await snapshots.restore_files(home, Activity(1, "restore", "", "", 0), asked)

        world.site.runner.scripts["convert"] = slowly
        waiting = world.begin(storage="subvolume")
        await begun.wait()
        with pytest.raises(errors.TransferBusy):
            await restore()
        taken = CreateOptions("two", "", full_copy=False)
        with pytest.raises(errors.TransferBusy):
            await snapshots.create(home, Activity(2, "snapshot", "", "", 0), taken, by_uid=0)
        going_on.set()
        await waiting
        assert "snapshot-files " not in world.done
        await restore()
        assert "snapshot-files " in world.done
        assert world.on_disk is not None
        assert world.on_disk["is_used"]
        with pytest.raises(errors.HomeExists, match="has been used"):
            await world.site.manager.conversions.undo(home, force=False)

    run(tmp_path, scenario)


def test_a_confirmation_that_is_repeated_takes_only_snapshots_from_before_the_switch(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        scripts, conversions = world.site.runner.scripts, world.site.manager.conversions
        asked: list[tuple[int, bool]] = []

        async def forget(_ask: Ask, told: Mapping[str, object]) -> Told:
            asked.append((int(str(told["before_usec"])), bool(told["only_readable"])))
            return {}

        async def failing(_ask: Ask, _told: object) -> Told:
            raise errors.HomeBusy

        await world.begin(storage="subvolume", to=str(tmp_path / "elsewhere/alice.homedir"))
        before = now_usec()
        await conversions.writing("alice")
        scripts["snapshot-forget"], clear = forget, scripts["clear"]
        scripts["clear"] = failing
        with pytest.raises(errors.HomeAbsent, match="may be all that there is"):
            await conversions.confirm("alice")
        (tmp_path / "elsewhere/alice.homedir").mkdir(parents=True)
        with pytest.raises(errors.HomeBusy):
            await conversions.confirm("alice")
        scripts["clear"] = clear
        await conversions.confirm("alice")
        assert len(asked) == 2
        assert len(set(asked)) == 1
        (switched, only_readable), _ = asked
        assert switched <= before
        assert not only_readable
        assert world.on_disk is None
        # Nor does it stay if the user goes before it is repeated.
        await world.begin(storage="directory")
        scripts["clear"] = failing
        with pytest.raises(errors.HomeBusy):
            await conversions.confirm("alice")
        scripts["clear"] = clear
        await conversions.removing("alice")
        assert world.on_disk is None

    run(tmp_path, scenario)


def test_what_was_left_of_one_keeps_nobody_from_the_next(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        scripts, wanted = world.site.runner.scripts, world.site.runner.scripts["convert"]
        clear = scripts["clear"]

        async def failing(_ask: Ask, _told: object) -> Told:
            raise errors.NoDiskSpace("There is no room.")

        async def stuck(_ask: Ask, _told: object) -> Told:
            raise errors.HomeBusy("It is in use.")

        scripts["convert"], scripts["clear"] = failing, stuck
        with pytest.raises(errors.NoDiskSpace):
            await world.begin(storage="subvolume")
        assert world.on_disk is not None
        assert world.on_disk["phase"] == MAKING
        scripts["convert"] = wanted
        with pytest.raises(errors.TransferBusy, match=r"/\.#homemgr-room-alice\.homedir.*in use"):
            await world.begin(storage="subvolume")
        scripts["clear"] = clear
        told = await world.begin(storage="subvolume")
        assert isinstance(told, dict)
        assert (told["phase"], told["storage"]) == (KEPT, "subvolume")

    run(tmp_path, scenario)


def test_an_undoing_that_is_repeated_takes_only_snapshots_from_before_the_return(
    tmp_path: Path,
) -> None:
    async def scenario(world: World) -> None:
        scripts, conversions = world.site.runner.scripts, world.site.manager.conversions
        home = world.site.home("alice")
        asked: list[tuple[int, int]] = []

        async def forget(_ask: Ask, told: Mapping[str, object]) -> Told:
            asked.append((int(str(told["since_usec"])), int(str(told["before_usec"]))))
            return {}

        async def failing(_ask: Ask, _told: object) -> Told:
            # What was kept is the home again.
            scripts["returnable"] = failing
            raise errors.HomeBusy

        await world.begin(storage="subvolume", to="/elsewhere/alice.homedir")
        scripts["snapshot-forget"], clear = forget, scripts["clear"]
        scripts["clear"] = failing
        with pytest.raises(errors.HomeBusy):
            await conversions.undo(home, force=False)
        back = now_usec()
        scripts["clear"] = clear
        # The same command goes on with what is left of the last.
        await conversions.undo(home, force=False)
        assert len(asked) == 2
        assert len(set(asked)) == 1
        (switched, until), _ = asked
        assert switched <= until <= back
        assert world.on_disk is None

    run(tmp_path, scenario)


def test_what_cannot_be_forgotten_keeps_no_service_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: str, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    async def scenario(world: World) -> None:
        manager = world.site.manager
        side = Side("directory", "/elsewhere/alice.homedir", "/elsewhere/.#homemgr-room-0")
        ConversionStore(world.site.services.config.transfer_directory).save(
            Conversion("alice", MAKING, side, side)
        )
        classic = ClassicStore(world.site.services.config.classic_directory)
        classic.save(ClassicState("rosa"))
        monkeypatch.setattr(os, "unlink", read_only)
        await manager.classic.recover()
        await manager.conversions.recover()
        monkeypatch.undo()
        assert world.on_disk is not None
        assert classic.find("rosa") is not None

    run(tmp_path, scenario)


def test_a_use_that_could_not_be_noted_is_noted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        home, save = world.site.home("alice"), ConversionStore.save
        await world.begin(storage="subvolume")

        def full(_store: ConversionStore, _state: Conversion) -> None:
            raise errors.NoDiskSpace

        async def noted(*, is_mounted: bool) -> object:
            home.is_mounted = is_mounted
            world.site.services.changed(home)
            await asyncio.gather(*world.site.manager.conversions._register._noting)
            assert world.on_disk is not None
            return world.on_disk["is_used"]

        monkeypatch.setattr(ConversionStore, "save", full)
        assert not await noted(is_mounted=True)
        monkeypatch.setattr(ConversionStore, "save", save)
        assert await noted(is_mounted=False)

    run(tmp_path, scenario)


def test_what_a_killed_worker_noted_of_the_files_does_not_stay(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        manager, config = world.site.manager, world.site.services.config
        side = Side("luks", "/elsewhere/alice.home", "/elsewhere/.#homemgr-room-0")
        ConversionStore(config.transfer_directory).save(Conversion("alice", MAKING, side, side))
        directory = Path(config.reference_directory)
        directory.mkdir(parents=True, exist_ok=True)
        left = [directory / f"convert-alice.{name}" for name in ("here", "there", "there-journal")]
        others = directory / "convert-alice.b.here"
        for path in (*left, others):
            path.write_text("names of files")
        await manager.conversions.recover()
        assert not any(path.exists() for path in left)
        assert others.exists()

    run(tmp_path, scenario)
