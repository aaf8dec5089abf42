"""Jobs that clients watch: how many there may be, and how long ended ones are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from homemgr import errors
from homemgr.daemon import activity
from homemgr.daemon.activity import Activities, Activity, State

Work = Callable[[Activity], Awaitable[dict[str, object]]]


async def for_ever(one: Activity) -> dict[str, object]:
    await one.cancelled.wait()
    raise errors.Cancelled


async def at_once(one: Activity) -> dict[str, object]:
    return {"number": one.number}


def run(scenario: Callable[[Activities], Awaitable[None]]) -> None:
    async def whole() -> None:
        activities = Activities()
        await scenario(activities)
        await activities.stop()

    asyncio.run(whole())


def fill(activities: Activities, count: int, *, uid: int) -> None:
    """Begin so many, each over a connection of its own."""
    for number in range(count):
        activities.begin("send", "alice", f":1.{uid}.{number}", uid, for_ever)


def test_one_connection_has_so_many_jobs_and_no_more() -> None:
    async def scenario(activities: Activities) -> None:
        for uid in (0, 1000):
            owner = f":1.{uid}"
            jobs = [
                activities.begin("send", "alice", owner, uid, for_ever)
                for _ in range(activity.MAX_PER_CALLER)
            ]
            with pytest.raises(errors.TooManyOperations, match=r"this caller.*wait"):
                activities.begin("send", "alice", owner, uid, for_ever)
            jobs[0].cancel()
            with pytest.raises(errors.Cancelled):
                await jobs[0].wait()
            activities.begin("send", "alice", owner, uid, for_ever)

    run(scenario)


def test_one_user_has_so_many_over_all_his_connections() -> None:
    async def scenario(activities: Activities) -> None:
        fill(activities, activity.MAX_PER_UID, uid=1000)
        with pytest.raises(errors.TooManyOperations, match="uid 1000"):
            activities.begin("send", "alice", ":1.9", 1000, for_ever)
        activities.begin("send", "bob", ":1.10", 1001, for_ever)

    run(scenario)


def test_root_has_more_but_not_all_workers() -> None:
    async def scenario(activities: Activities) -> None:
        fill(activities, activity.MAX_RUNNING, uid=0)
        for uid in (0, 1000):
            with pytest.raises(errors.TooManyOperations, match="on this machine"):
                activities.begin("send", "alice", ":1.9", uid, for_ever)

    run(scenario)


def test_of_one_connection_the_last_results_are_kept() -> None:
    async def scenario(activities: Activities) -> None:
        count = activity.MAX_ENDED_PER_CALLER + 5
        running = activities.begin("send", "alice", ":1.1", 0, for_ever)
        other = activities.begin("send", "alice", ":1.2", 0, at_once)
        for _ in range(count):
            await activities.begin("send", "alice", ":1.1", 0, at_once).wait()
        ended = [one for one in activities if one.state is State.DONE and one.owner == ":1.1"]
        assert [one.number for one in ended] == list(range(8, count + 3))
        assert activities.find(running.number) is running
        assert await other.wait() == {"number": 2}
        assert activities.find(other.number) is other
        assert activities.find(3) is None

    run(scenario)


def test_however_many_connections_there_are_few_results_are_kept() -> None:
    async def scenario(activities: Activities) -> None:
        for number in range(activity.MAX_ENDED + 5):
            await activities.begin("send", "alice", f":1.{number}", 0, at_once).wait()
        assert len(list(activities)) == activity.MAX_ENDED

    run(scenario)


def test_who_waits_for_a_job_gets_its_result_even_if_it_is_forgotten() -> None:
    async def scenario(activities: Activities) -> None:
        first = activities.begin("send", "alice", ":1.1", 0, at_once)
        waiting = asyncio.create_task(first.wait())
        for _ in range(activity.MAX_ENDED_PER_CALLER + 1):
            await activities.begin("send", "alice", ":1.1", 0, at_once).wait()
        assert activities.find(1) is None
        assert await waiting == {"number": 1}

    run(scenario)
