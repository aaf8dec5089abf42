"""The comparison of two services sees what differs, and nothing but that."""

from __future__ import annotations

import pytest

from tests.parity.compare import Difference, differences
from tests.parity.intended import INTENDED, SINCE_252, unexplained, unused


def test_what_is_new_each_time_is_no_difference() -> None:
    def outcome(stamp: int, digest: str, said: str) -> dict[str, object]:
        record = {"lastChangeUSec": stamp, "privileged": {"hashedPassword": [f"$y${digest}"]}}
        return {"step": {"code": 0, "said": said, "stdout": [record, "x"]}}

    assert differences(outcome(10**15, "abc", "yes"), outcome(10**15 + 1, "def", "sí")) == []
    # A moment that a client chose is kept as it is.
    assert differences(outcome(5, "abc", ""), outcome(6, "abc", "")) != []


@pytest.mark.parametrize(
    ("homed", "ours", "member"),
    [
        ({"a": [1]}, {"a": [2]}, "a[0]"),
        ({"a": {}}, {"a": []}, "a"),
        ({"a": True}, {"a": 1}, "a"),
        ({"a": ["x", "y", "y"]}, {"a": ["y", "x"]}, "a[y]"),
        ({"a": [["b", 1], ["c", 2]]}, {"a": [["c", 3], ["b", 1]]}, "a[c][1]"),
        ({"a": "$6$abc"}, {"a": "$y$abc"}, "a"),
        ({"0" * 32: 1}, {"1" * 32: 2}, "MACHINE"),
    ],
)
def test_every_value_counts(homed: object, ours: object, member: str) -> None:
    (found,) = differences({"step": homed}, {"step": ours})
    assert (found.step, found.member) == ("step", member)


def test_a_step_that_one_did_not_do_is_a_difference() -> None:
    assert differences({"step": {"code": 0}}, {}) == [Difference("step", "code", 0, None)]


def test_what_is_meant_is_meant_exactly() -> None:
    meant = Difference("x: y", "stdout.binding.MACHINE.imagePath", "/home/a.homedir", "")
    ours = meant._replace(ours="/home/.homemgr/a.homedir")
    assert unexplained([ours], INTENDED) == []
    assert unexplained([meant], INTENDED) == [meant]
    assert unexplained([ours._replace(homed="/srv/a.homedir")], INTENDED) != []
    assert len(unused([ours], INTENDED)) == len(INTENDED) - 1


def test_every_difference_has_its_reason() -> None:
    assert all(row.why.endswith(".") for row in (*INTENDED, *SINCE_252))
