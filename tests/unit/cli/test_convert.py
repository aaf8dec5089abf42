"""Sizes, spans, moments and shares as systemd spells them."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.cli import convert

HOUR = 3600 * 1_000_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1K", 1024),
        ("1k", 1024),
        ("500M", 500 << 20),
        ("1.5G", 3 << 29),
        ("2TiB", 2 << 40),
        ("7B", 7),
        ("1 G", 1 << 30),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert convert.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90_000_000),
        ("90s", 90_000_000),
        ("1min 30s", 90_000_000),
        ("1min30s", 90_000_000),
        ("1.5h", 3 * HOUR // 2),
        ("500ms", 500_000),
        ("7us", 7),
        ("2weeks", 14 * 24 * HOUR),
        ("1y", 31557600 * 1_000_000),
        ("infinity", (1 << 64) - 1),
    ],
)
def test_spans(text: str, value: int) -> None:
    assert convert.span(text) == value


@pytest.mark.parametrize("text", ["", " ", "x", "5x", "-5s", "1min x", "infinity 5"])
def test_bad_spans(text: str) -> None:
    with pytest.raises(ValueError, match="a time span"):
        convert.span(text)


def usec(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc]


def test_moments() -> None:
    assert convert.moment("2027-01-02 03:04:05 UTC") == usec(2027, 1, 2, 3, 4, 5)
    assert convert.moment("2027-01-02 03:04 UTC") == usec(2027, 1, 2, 3, 4)
    assert convert.moment("2027-01-02 UTC") == usec(2027, 1, 2)
    assert convert.moment("@1900000000") == 1_900_000_000 * 1_000_000


def test_moments_without_zone_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert convert.moment("2027-07-01 12:00") == usec(2027, 7, 1, 10, 0)
        assert convert.moment("2027-01-01 12:00") == usec(2027, 1, 1, 11, 0)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_moments_from_now() -> None:
    now = time.time_ns() // 1000
    later = convert.moment("+2h")
    assert isinstance(later, int)
    assert 0 <= later - now - 2 * HOUR < 60_000_000
    today = convert.moment("today")
    tomorrow = convert.moment("tomorrow")
    assert isinstance(today, int)
    assert isinstance(tomorrow, int)
    assert today <= now < tomorrow


@given(st.integers(min_value=0, max_value=10_000))
def test_shares_are_between_none_and_all(permyriad: int) -> None:
    found = convert.share(f"{permyriad // 100}.{permyriad % 100:02}%")
    assert abs(found - permyriad * convert.FULL_SCALE / 10_000) <= 0.5


def test_shares_at_the_ends() -> None:
    assert convert.share("0%") == 0
    assert convert.share("100%") == convert.FULL_SCALE


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for convert_one in (
        convert.size, convert.span, convert.moment, convert.share, convert.boolean,
        convert.number, convert.mode, convert.limit, convert.capabilities, convert.weight,
    ):  # fmt: skip
        with contextlib.suppress(ValueError):
            convert_one(text)
