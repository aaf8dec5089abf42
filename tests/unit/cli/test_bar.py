"""One line of progress: what fits, what is left out, what odd figures do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.cli import bar

WHOLE = {
    "phase": "copying",
    "files": 2000,
    "total_files": 4000,
    "bytes": 1 << 29,
    "total_bytes": 1 << 30,
    "rate": 1 << 20,
    "left_s": 3700,
}


def test_with_room_for_all_it_shows_all() -> None:
    assert bar.line(WHOLE, 200) == (
        "copying  [===============>              ]   50%  1:01:40 left"
        "  512.0 MiB of 1.0 GiB  1.0 MiB/s  2,000 of 4,000 files"
    )


@pytest.mark.parametrize(
    ("room", "last"),
    [(79, "1.0 MiB/s"), (70, "512.0 MiB of 1.0 GiB"), (50, "1:01:40 left"), (30, "50%")],
)
def test_what_people_want_to_know_least_goes_first(room: int, last: str) -> None:
    text = bar.line(WHOLE, room)
    assert text.endswith(last)
    assert len(text) <= room


def test_a_phase_without_figures_is_told_alone() -> None:
    assert bar.line({"phase": "waiting for logout"}, 80) == "waiting for logout"
    assert bar.line({"phase": "waiting for logout"}, 7) == "waiting"


def test_all_files_empty_is_measured_by_their_number() -> None:
    progress = {"phase": "x", "files": 1, "total_files": 4, "bytes": 0, "total_bytes": 0}
    assert " 25%" in bar.line(progress, 80)


def test_sizes_are_those_of_powers_of_two() -> None:
    assert [bar.size(n) for n in (0, 1023, 1024, 1 << 30)] == [
        *("0 B", "1023 B", "1.0 KiB", "1.0 GiB")
    ]


def test_figures_that_are_none_are_left_out() -> None:
    odd = {"phase": "x", "bytes": float("inf"), "total_bytes": 9, "left_s": float("nan")}
    assert bar.line(odd, 80) == "x"


VALUES = st.one_of(st.none(), st.integers(-5, 1 << 70), st.floats(), st.text(max_size=3))


@given(
    st.dictionaries(st.sampled_from(sorted(WHOLE)), VALUES), st.integers(min_value=1, max_value=200)
)
def test_whatever_is_told_fits_into_the_line(progress: dict[str, object], room: int) -> None:
    assert len(bar.line(progress, room)) <= room
