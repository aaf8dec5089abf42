"""Versions order as the specification says, and as systemd does it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.extension.versions import compare, sort_key

#: From the specification's list of examples; ascending pairs.
ASCENDING = [
    ("bar-123", "foo-123"),
    ("123", "123a"),
    ("123", "123.a"),
    ("123.a", "123.b"),
    ("123.a", "123a"),
    ("A", "a"),
    ("", "0"),
    ("0", "0."),
    ("0", "0.0"),
    ("1_", "1.2"),
    ("1.3.3", "1_2_3"),
    ("1+", "1.2"),
    ("1.3.3", "1+2+3"),
    ("123~rc1", "123"),
    ("123~rc1", "123~rc2"),
    ("123", "123^1"),
    ("123^1", "123.1"),
    ("1.2-3", "1.2.3"),
    ("9", "10"),
    ("1.9.9", "1.10"),
]
EQUAL = [("11", "11"), ("11é", "11è"), ("1_", "1"), ("_1", "1"), ("1+", "1"), ("01", "1")]

TEXTS = st.text("0129aBz.~^-_+", max_size=8)


@pytest.mark.parametrize(("old", "new"), ASCENDING)
def test_newer_is_newer_from_both_sides(old: str, new: str) -> None:
    assert compare(old, new) < 0
    assert compare(new, old) > 0


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_what_only_separates_makes_no_difference(a: str, b: str) -> None:
    assert compare(a, b) == compare(b, a) == 0


@given(TEXTS, TEXTS)
def test_order_does_not_depend_on_who_comes_first(a: str, b: str) -> None:
    assert compare(a, b) == -compare(b, a)
    assert compare(a, a) == 0


def test_marks_order_as_in_systemd() -> None:
    ordered = ["122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-a1", "123-3", "123-3.1"]
    ordered += ["123^patch1", "123^1", "123.a-1", "123.1-1", "123a-1", "124"]
    assert sorted(set(ordered), key=sort_key) == ordered


def test_a_list_is_sorted_oldest_first() -> None:
    versions = ["1.10", "1.9", "1.10~rc1", "2", "1.10^fix"]
    assert sorted(versions, key=sort_key) == ["1.9", "1.10~rc1", "1.10", "1.10^fix", "2"]


def test_a_very_long_number_is_compared_as_one() -> None:
    assert compare("9" * 5000, "1" + "0" * 5000) < 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@settings(max_examples=40, deadline=None)
@given(TEXTS.filter(lambda t: not t.startswith("-")), TEXTS.filter(lambda t: t[:1] != "-"))
def test_systemd_agrees(a: str, b: str) -> None:
    argv = ["systemd-analyze", "compare-versions", a, b]
    code = subprocess.run(argv, check=False, capture_output=True).returncode
    order = compare(a, b)
    # systemd 252 says 11 for newer, 12 for older.
    assert code == {0: 0, 1: 11, -1: 12}[order]
