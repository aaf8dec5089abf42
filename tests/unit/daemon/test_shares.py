"""Free space is shared out: never more than there is, by weight, and to each what it needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.daemon.shares import (
    BACKING_WEIGHT,
    Claim,
    are_worthwhile,
    pause_s,
    share_out,
)

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 4096


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    """Homes as they may be: some were never given all the room of their size."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        size = draw(st.integers(5 * MIB, 100 * GIB)) // BLOCK * BLOCK
        used, least, held = (draw(st.integers(0, size)) for _ in range(3))
        made.append(Claim(f"user{number}", draw(st.integers(1, 10000)), size, used, least, held))
    return made


FREE = st.integers(0, 1 << 40)


def to_share(free: int, homes: list[Claim]) -> int:
    return free + sum(max(0, home.held - home.used) for home in homes)


def is_enough(free: int, homes: list[Claim]) -> bool:
    return sum(home.floor - home.used for home in homes) <= to_share(free, homes)


def rooms(free: int, homes: list[Claim]) -> dict[str, int]:
    sizes = share_out(free, homes)
    return {home.name: sizes[home.name] - home.used for home in homes}


@given(FREE, claims())
def test_all_of_it_is_on_the_disk_at_once(free: int, homes: list[Claim]) -> None:
    sizes = share_out(free, homes)
    if is_enough(free, homes):
        assert sum(sizes[home.name] - home.used for home in homes) <= to_share(free, homes)
    else:
        assert sizes == {home.name: home.size for home in homes}


@given(FREE, claims())
def test_nobody_gets_less_than_what_he_needs(free: int, homes: list[Claim]) -> None:
    sizes = share_out(free, homes)
    if is_enough(free, homes):
        assert all(sizes[home.name] >= max(home.used, home.least) for home in homes)
        assert all(size % BLOCK == 0 for size in sizes.values())


@given(FREE, claims())
def test_who_has_more_than_he_needs_has_it_by_weight(free: int, homes: list[Claim]) -> None:
    if not is_enough(free, homes):
        return
    room = rooms(free, homes)
    above = [home for home in homes if room[home.name] > home.floor - home.used]
    left = to_share(free, homes) - sum(room.values())
    for one in above:
        # As much for each of its parts as the disk keeps free for each of its own, and others.
        assert (room[one.name]) * BACKING_WEIGHT <= left * one.weight
        for other in homes:
            slack = BLOCK * (one.weight + other.weight)
            assert room[one.name] * other.weight <= room[other.name] * one.weight + slack


@given(FREE, claims())
def test_it_does_not_matter_who_comes_first(free: int, homes: list[Claim]) -> None:
    assert share_out(free, homes) == share_out(free, homes[::-1])


def test_one_home_gets_five_parts_of_six() -> None:
    home = Claim("anna", 100, GIB, GIB // 2, 256 * MIB, GIB)
    (size,) = share_out(GIB, [home]).values()
    assert size == (GIB // 2 + (GIB + GIB // 2) * 100 // 120) // BLOCK * BLOCK


def test_what_one_needs_beyond_his_part_all_others_miss() -> None:
    poor = Claim("anna", 1, GIB, 0, GIB, GIB)
    others = [Claim(name, 100, GIB, 0, 0, GIB) for name in ("bert", "carl")]
    sizes = share_out(0, [poor, *others])
    assert sizes["anna"] == GIB
    assert sizes["bert"] == sizes["carl"] == 2 * GIB * 100 // 220 // BLOCK * BLOCK


def test_little_is_not_worth_it() -> None:
    homes = [Claim(name, 100, 100 * MIB, 0, 0, 0) for name in ("anna", "bert")]
    assert not are_worthwhile({"anna": 104 * MIB, "bert": 96 * MIB}, homes)
    assert are_worthwhile({"anna": 105 * MIB, "bert": 100 * MIB}, homes)
    assert are_worthwhile({"anna": 100 * MIB, "bert": 95 * MIB}, homes)


@pytest.mark.parametrize(
    ("least_free", "minutes"),
    [(0, 1.0), (10 * MIB, 1.0), (100 * MIB, 2.68), (GIB, 4.62), (100 * GIB, 8.45), (1 << 60, 15.0)],
)
def test_it_is_done_the_sooner_the_less_there_is(least_free: int, minutes: float) -> None:
    assert pause_s(least_free) / 60 == pytest.approx(minutes, abs=0.01)
