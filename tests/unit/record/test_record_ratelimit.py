"""The login limit: windows, the limit itself, clocks that are wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_samples import MACHINE_ID

from homemgr.errors import AuthenticationLimitHit
from homemgr.record import ratelimit
from homemgr.record.effective import EffectiveRecord
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

SECOND = 1_000_000
NOW = 1_000 * SECOND


def effective(status: JsonObject, **members: Json) -> EffectiveRecord:
    record = UserRecord({"userName": "alice", "status": {MACHINE_ID: status}, **members})
    return record.on(Machine(MACHINE_ID))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, (NOW, 1)),
        ({"rateLimitBeginUSec": NOW - SECOND, "rateLimitCount": 1}, (NOW - SECOND, 2)),
        ({"rateLimitBeginUSec": NOW - SECOND, "rateLimitCount": 29}, (NOW - SECOND, 30)),
        ({"rateLimitBeginUSec": NOW - 60 * SECOND, "rateLimitCount": 30}, (NOW, 1)),
        ({"rateLimitBeginUSec": NOW + 1, "rateLimitCount": 30}, (NOW, 1)),
        ({"rateLimitBeginUSec": NOW, "rateLimitCount": 0}, (NOW, 1)),
        ({"rateLimitBeginUSec": "x", "rateLimitCount": "y"}, (NOW, 1)),
    ],
)
def test_counting(status: JsonObject, expected: tuple[int, int]) -> None:
    members = ratelimit.count(effective(status), NOW)
    assert (members["rateLimitBeginUSec"], members["rateLimitCount"]) == expected


def test_a_full_window_refuses_and_says_how_long() -> None:
    status: JsonObject = {"rateLimitBeginUSec": NOW - 20 * SECOND, "rateLimitCount": 30}
    with pytest.raises(AuthenticationLimitHit, match="alice: try again in 40 seconds"):
        ratelimit.count(effective(status), NOW)


def test_interval_and_burst_of_the_record_count() -> None:
    status: JsonObject = {"rateLimitBeginUSec": NOW - 5 * SECOND, "rateLimitCount": 2}
    with pytest.raises(AuthenticationLimitHit):
        ratelimit.count(effective(status, rateLimitBurst=2), NOW)
    members = ratelimit.count(
        effective(status, rateLimitBurst=2, rateLimitIntervalUSec=5 * SECOND), NOW
    )
    assert members["rateLimitCount"] == 1


@given(st.lists(st.integers(0, 5 * SECOND), min_size=40, max_size=120))
def test_no_window_ever_holds_more_than_the_burst(gaps: list[int]) -> None:
    machine = Machine(MACHINE_ID)
    record = UserRecord({"userName": "alice", "rateLimitBurst": 5})
    now, counted = NOW, 0
    windows: dict[object, int] = {}
    for gap in gaps:
        now += gap
        try:
            members = ratelimit.count(record.on(machine), now)
        except AuthenticationLimitHit:
            continue
        counted += 1
        record = record.with_status(machine.id, members)
        begin = members["rateLimitBeginUSec"]
        windows[begin] = windows.get(begin, 0) + 1
    assert sum(windows.values()) == counted
    assert max(windows.values()) <= 5


def test_counters_of_success_and_failure() -> None:
    view = effective({"goodAuthenticationCounter": 4})
    assert ratelimit.succeeded(view, NOW) == {
        "goodAuthenticationCounter": 5,
        "lastGoodAuthenticationUSec": NOW,
    }
    assert ratelimit.failed(view, NOW) == {
        "badAuthenticationCounter": 1,
        "lastBadAuthenticationUSec": NOW,
    }
