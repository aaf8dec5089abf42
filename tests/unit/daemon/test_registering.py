"""A registration is whole before anything else happens to the home."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from machines import Site

from homemgr.daemon import registration

RECORD = json.dumps({"userName": "rosa", "disposition": "regular", "uid": 60200})


def test_who_forgets_a_user_waits_for_the_end_of_the_registration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        site = Site(tmp_path, "alpha", "a" * 32)
        await site.start()
        store = site.services.store
        make, is_making, may_make = store.make_blob_directory, asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def make_slowly(user: str) -> None:
            loop.call_soon_threadsafe(is_making.set)
            assert may_make.wait(20)
            make(user)

        monkeypatch.setattr(store, "make_blob_directory", make_slowly)
        registering = asyncio.create_task(registration.register(site.manager, RECORD))
        await is_making.wait()
        forgetting = asyncio.create_task(registration.unregister(site.manager, site.home("rosa")))
        # Without waiting it would need no more than this to be done.
        await asyncio.wait([forgetting], timeout=0.2)
        may_make.set()
        await registering
        await forgetting
        assert site.manager.registry.by_name("rosa") is None
        assert not Path(store.blob_directory("rosa")).exists()
        assert not Path(store.record_path("rosa")).exists()
        await site.manager.stop()

    asyncio.run(scenario())
