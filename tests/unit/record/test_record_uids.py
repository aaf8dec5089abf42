"""uids: homed's choice for known names, and an order that leaves none out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import UIDNotAllowed
from homemgr.record import uids
from homemgr.record.uids import DEFAULT_RANGE, UidRange, candidates


@pytest.mark.parametrize(
    ("name", "uid"),
    [("alice", 60456), ("a-bc", 60101), ("bob", 60076), ("fred", 60001), ("gina", 60091),
     ("sue", 60127)],
)  # fmt: skip
def test_first_choice_is_the_one_homed_made(name: str, uid: int) -> None:
    assert next(candidates(name)) == uid


def test_siphash_agrees_with_the_vectors_of_its_authors() -> None:
    key = bytes(range(16))
    assert uids.siphash24(b"", key) == 0x726FDB47DD0E0E31
    assert uids.siphash24(bytes(range(8)), key) == 0x93F5F5799A932462
    assert uids.siphash24(bytes(range(15)), key) == 0xA129CA6149BE45E5


@given(st.text(max_size=12))
def test_every_uid_comes_once(name: str) -> None:
    assert sorted(candidates(name)) == list(range(60001, 60514))


@given(st.text(max_size=8), st.integers(1, 200), st.integers(1000, 60000))
def test_any_range_is_covered(name: str, size: int, first: int) -> None:
    uid_range = UidRange(first, first + size - 1)
    found = list(candidates(name, uid_range))
    assert len(found) == len(set(found))
    assert set(found) == {u for u in range(first, first + size) if uids.is_allowed(u)}


def test_the_owner_of_the_image_comes_first_and_once() -> None:
    found = list(candidates("alice", owner_hint=60500))
    assert found[:2] == [60500, 60456]
    assert len(found) == len(set(found)) == 513


@pytest.mark.parametrize("owner", [65534, 0, 1000, 70000])
def test_an_owner_outside_the_range_is_no_hint(owner: int) -> None:
    assert next(candidates("alice", owner_hint=owner)) == 60456


def test_two_names_do_not_walk_the_same_way() -> None:
    assert list(candidates("alice"))[1:4] != list(candidates("bob"))[1:4]


def test_the_order_is_the_same_on_every_machine() -> None:
    assert list(candidates("alice")) == list(candidates("alice"))


def test_a_wide_range_holds_five_thousand_homes_without_forbidden_ids() -> None:
    found = set(candidates("alice", UidRange(60001, 70000)))
    assert len(found) >= 5000
    assert not found & set(range(60578, 60706))
    assert not found & {*range(61184, 65520), 65534, 65535}
    assert {60001, 60577, 60706, 61183, 65520, 65536, 70000} <= found


def test_an_empty_range_gives_nothing() -> None:
    assert list(candidates("alice", UidRange(5, 4))) == []


@pytest.mark.parametrize("uid", [1000, 5000, 60001, 60513, 60577, 60706, 61183, 65520, 70000])
def test_explicit_uids_that_are_fine(uid: int) -> None:
    uids.check_allowed(uid)
    assert uids.is_allowed(uid)


@pytest.mark.parametrize(
    "uid",
    [-1, 0, 999, 60578, 60705, 61184, 65519, 65534, 65535, 0xFFFFFFFF, 1 << 40],
)
def test_explicit_uids_that_are_refused(uid: int) -> None:
    with pytest.raises(UIDNotAllowed, match=str(uid)):
        uids.check_allowed(uid)
    assert not uids.is_allowed(uid)


def test_the_default_range_is_that_of_homed() -> None:
    assert DEFAULT_RANGE.size == 513
    assert 60001 in DEFAULT_RANGE
    assert 60514 not in DEFAULT_RANGE
    assert "60001" not in DEFAULT_RANGE
