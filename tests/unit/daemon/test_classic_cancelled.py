"""A job that turns an account into a home area, or back, is ended hard in the midst of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from machines import Site

from homemgr.daemon import activity
from homemgr.daemon.activity import Activity, State

if TYPE_CHECKING:
    from pathlib import Path

    from homemgr.daemon.activity import Work

USER = "rosa"


class Worker:
    """Answers as workers do; the files change their owner once they may."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.begun: list[str] = []
        self.is_at_work, self.may_end = asyncio.Event(), asyncio.Event()

    async def run(self, verb: str, *_: object, **__: object) -> dict[str, object]:
        self.begun.append(verb)
        if verb in ("classic-take", "classic-give-back"):
            self.is_at_work.set()
            await self.may_end.wait()
        record = {"userName": USER, "disposition": "regular", "uid": 60200}
        return {
            "answer": {"files": 1},
            "state": {"uid": 60200, "image": str(self.image)},
            "record": {**record, "privileged": {"hashedPassword": ["$y$x"]}},
            "binding": {"imagePath": str(self.image), "storage": "directory"},
            "lost_groups": [],
            "snapshots": [],
        }


def test_what_has_begun_is_done_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        site = Site(tmp_path, "alpha", "a" * 32)
        await site.start()
        classic, services = site.manager.classic, site.services
        worker = Worker(tmp_path / "rosa.homedir")
        monkeypatch.setattr(services.runner, "run", worker.run)

        async def ended_hard(work: Work) -> None:
            worker.is_at_work.clear()
            worker.may_end.clear()
            job = site.manager.activities.begin("classic", USER, ":1.1", 0, work)
            await asyncio.wait_for(worker.is_at_work.wait(), 20)
            job.cancel()
            # Without the protection it would need no more than this to be ended.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(job.wait(), 0.2)
            worker.may_end.set()
            await job.wait()
            assert job.state is State.DONE

        async def convert(job: Activity) -> dict[str, object]:
            return await classic.convert(job, USER, is_dry_run=False)

        async def undo(job: Activity) -> dict[str, object]:
            return await classic.undo(job, USER)

        await ended_hard(convert)
        assert [told["phase"] for told in await classic.listed()] == ["converted"]
        assert services.store.has_record(USER)
        await ended_hard(undo)
        assert await classic.listed() == []
        assert not services.store.has_record(USER)
        assert worker.begun[-2:] == ["classic-give-back", "classic-put-back"]
        await site.manager.stop()

    monkeypatch.setattr(activity, "CANCEL_S", 0.0)
    asyncio.run(scenario())
