"""The tables of ids: nothing maps twice, in either direction, and homed's ranges are kept."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.storage import idmapping
from homemgr.storage.idmapping import NOBODY, homed, strict

#: Where the table changes its mind, and anything else.
EDGES = [0, 1, 60000, 60001, 60512, 60513, 60514, 65533, 65534, 524287, 524288, 2147483646]
IDS = st.one_of(st.sampled_from(EDGES), st.integers(0, 0xFFFFFFFE))

#: systemd-homed 262's own table for a home of nobody seen as 60001, read back from a mount.
REAL = """\
0 0 60001
65534 60001 1
60513 60513 5021
524288 524288 1878523904
2147352576 2147352576 65536
2147483646 2147483646 1
"""


def parse(text: str) -> list[tuple[int, int, int]]:
    return [tuple(map(int, line.split())) for line in text.splitlines()]  # type: ignore[misc]


def seen_as(text: str, disk: int) -> list[int]:
    return [s + disk - d for d, s, n in parse(text) if d <= disk < d + n]


def test_strict_maps_one_id_and_nothing_else() -> None:
    assert strict(NOBODY, 60001) == ("65534 60001 1\n", "65534 60001 1\n")


def test_group_may_differ_from_user() -> None:
    assert strict(NOBODY, 60001, 100, 60002) == ("65534 60001 1\n", "100 60002 1\n")
    assert seen_as(homed(NOBODY, 60001, 100, 60002).gid_map, 100) == [60002]


def test_homed_table_is_homeds_but_for_its_overlap() -> None:
    ours, theirs = homed(NOBODY, 60001).uid_map, REAL
    for disk in {edge + step for edge in EDGES for step in (-1, 0, 1)} - {60513}:
        assert seen_as(ours, disk) == seen_as(theirs, disk)


def test_uid_60513_can_be_mapped() -> None:
    """Defect 7 of systemd-homed 262: its table maps 60513 twice and the kernel refuses it."""
    assert seen_as(homed(NOBODY, 60513).uid_map, NOBODY) == [60513]
    assert seen_as(homed(NOBODY, 60513).uid_map, 60513) == []
    assert seen_as(homed(60513, 60513).uid_map, 60513) == [60513]


@given(IDS, IDS)
def test_owner_is_seen_as_local_user_and_no_id_is_ambiguous(disk: int, local: int) -> None:
    for text in (homed(disk, local).uid_map, strict(disk, local).uid_map):
        lines = parse(text)
        assert seen_as(text, disk) == [local]
        assert len(lines) <= 340
        assert all(count > 0 for _, _, count in lines)
        for side in (0, 1):
            spans = sorted((line[side], line[side] + line[2]) for line in lines)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@given(IDS, IDS, IDS)
def test_other_ids_are_themselves_or_nothing(disk: int, local: int, other: int) -> None:
    found = seen_as(homed(disk, local).uid_map, other)
    if other != disk:
        assert found in ([], [other])
    if other in (disk, local) and other != disk:
        assert found == []


@pytest.mark.parametrize("bad", [-1, 0xFFFFFFFF])
def test_ids_the_kernel_reserves_are_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="not an id"):
        idmapping.strict(bad, 60001)
    with pytest.raises(ValueError, match="not an id"):
        idmapping.homed(NOBODY, bad)
