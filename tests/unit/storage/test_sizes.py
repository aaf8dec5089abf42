"""Sizes of homes: what is chosen of what is asked for."""

from __future__ import annotations

import pytest

from homemgr.errors import BadHomeSize
from homemgr.storage import sizes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (20 * MIB, 20 * MIB),
        (20 * MIB + 4095, 20 * MIB),
        (sizes.SMALLEST, 10 * MIB + 4096),
        (sizes.LARGEST, 100 * MIB),
    ],
)
def test_whole_blocks_between_what_is_needed_and_what_there_is(wanted: int, expected: int) -> None:
    assert sizes.chosen(wanted, 10 * MIB + 1, 100 * MIB + 4000, "") == expected


@pytest.mark.parametrize("wanted", [10 * MIB, 101 * MIB, 1])
def test_what_cannot_be_says_what_could(wanted: int) -> None:
    with pytest.raises(BadHomeSize, match="expected 10489856 to 104857600, as it is full"):
        sizes.chosen(wanted, 10 * MIB + 1, 100 * MIB, "it is full")


def test_no_home_is_smaller_or_larger_than_systemd_homed_has_them() -> None:
    assert sizes.chosen(sizes.SMALLEST, 0, 1 << 50, "") == 5 * MIB
    assert sizes.chosen(sizes.LARGEST, 0, 1 << 50, "") == 5 << 40


def test_a_disk_that_is_too_small_for_what_is_needed_has_no_size() -> None:
    with pytest.raises(BadHomeSize):
        sizes.chosen(sizes.LARGEST, 10 * MIB, 9 * MIB, "")
