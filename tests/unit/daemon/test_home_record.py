"""The host copy of a record: what is saved, deleted and saved late never overlaps."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import cast

from homemgr.daemon.config import Config
from homemgr.daemon.home import Home, Services
from homemgr.daemon.store import Store
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord


class SlowStore(Store):
    """Deletes when it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(*(str(directory / name) for name in ("records", "blobs", "stamps")))
        self.prepare()
        self.may_delete = threading.Event()

    def delete(self, user: str) -> None:
        super().delete(user)
        assert self.may_delete.wait(10)


def home_in(directory: Path) -> tuple[Home, SlowStore]:
    """A home of alice that is known to a store and to nobody else."""
    store = SlowStore(directory)
    services = cast("Services", ServicesOf(store, directory))
    record = UserRecord({"userName": "alice", "disposition": "regular"})
    bound = record.with_binding("0" * 32, {"uid": 60123, "imagePath": "/nowhere/alice.homedir"})
    return Home(services, bound, is_fixated=True), store


class ServicesOf:
    """What a home needs of its daemon to keep a record."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.config = Config(runtime_directory=str(directory))
        self.machine = Machine("0" * 32, "box", "/home")

    def changed(self, home: Home) -> None:
        """Tell nobody."""

    def vanished(self, home: Home) -> None:
        """Tell nobody."""


def test_counters_saved_late_do_not_bring_a_removed_record_back(tmp_path: Path) -> None:
    async def run() -> None:
        home, store = home_in(tmp_path)
        await home.store_record(home.record)
        home.update_status({"goodAuthenticationCounter": 1})
        dropping = asyncio.ensure_future(home.drop_record())
        await asyncio.sleep(0.05)
        saving = asyncio.ensure_future(home.flush())
        await asyncio.sleep(0.05)
        store.may_delete.set()
        await asyncio.gather(dropping, saving)

    asyncio.run(run())
    assert os.listdir(tmp_path / "records") == []


def test_record_of_a_removal_elsewhere_is_kept_until_it_is_finished(tmp_path: Path) -> None:
    async def run() -> tuple[Store, str | None]:
        home, store = home_in(tmp_path)
        store.may_delete.set()
        await home.store_record(home.record)
        return store, await home.drop_record(aside=True)

    store, kept = asyncio.run(run())
    assert list(store.load()) == []
    ((name, record),) = store.removed()
    assert (name, record.name) == (kept, "alice")
    store.finish_removal(name)
    assert os.listdir(tmp_path / "records") == []
