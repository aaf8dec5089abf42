"""The report: everything is counted, the first is told, and a hostile one is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_samples import paths

from homemgr.errors import StreamError
from homemgr.transfer.frames import Control, pack
from homemgr.transfer.report import KEPT, KEPT_BYTES, Note, Report

NOTE = Note("socket-skipped", b"a/\xff\n", "")

notes = st.builds(
    Note, st.sampled_from(["socket-skipped", "uid-changed"]), st.just(b"") | paths, st.text()
)


def report_of(some: list[Note]) -> Report:
    report = Report()
    report.extend(some)
    return report


def through_json(report: Report) -> Report:
    return Report.from_json(json.loads(json.dumps(report.to_json())))


@given(st.lists(notes, max_size=8))
def test_report_travels_as_it_is(some: list[Note]) -> None:
    again = through_json(report_of(some))
    assert list(again.notes) == some
    assert again.counts == report_of(some).counts
    assert sum(again.counts.values()) == len(some)


@given(st.lists(notes, max_size=4), st.lists(notes, max_size=4))
def test_reports_of_both_sides_are_one(one: list[Note], other: list[Note]) -> None:
    report = report_of(one)
    report.merge(report_of(other))
    assert report.to_json() == report_of(one + other).to_json()


def test_json_is_as_documented() -> None:
    assert report_of([NOTE, NOTE]).to_json() == {
        "counts": {"socket-skipped": 2},
        "notes": [{"kind": "socket-skipped", "path": "a/\udcff\n", "detail": ""}] * 2,
    }


def test_first_notes_are_kept_and_all_are_counted() -> None:
    report = report_of([Note("socket-skipped", b"%d" % n, "") for n in range(3 * KEPT)])
    assert [note.path for note in report.notes] == [b"%d" % n for n in range(KEPT)]
    assert report.counts == {"socket-skipped": 3 * KEPT}
    again = through_json(report)
    again.merge(report)
    assert again.counts == {"socket-skipped": 6 * KEPT}
    assert len(again.notes) == KEPT


def test_longest_report_fits_in_a_frame() -> None:
    report = report_of([Note("socket-skipped", b"\xff" * 500, "\udcff" * 9)] * KEPT)
    assert sum(len(n.path) + 3 * len(n.detail) for n in report.notes) > KEPT_BYTES - 527
    pack(Control(report.to_json()))


GOOD = {"kind": "socket-skipped", "path": "a", "detail": ""}


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], {}, {"counts": {}}, {"notes": []}, {"counts": [], "notes": []}),
        {"counts": {"socket-skipped": 0}, "notes": []},
        {"counts": {"socket-skipped": -1}, "notes": []},
        {"counts": {"socket-skipped": True}, "notes": []},
        {"counts": {"socket-skipped": 1.0}, "notes": []},
        {"counts": {"socket-skipped": 1 << 53}, "notes": []},
        {"counts": {"Socket": 1}, "notes": []},
        {"counts": {"": 1}, "notes": []},
        {"counts": {"\x1b[31m": 1}, "notes": []},
        {"counts": {"a" * 41: 1}, "notes": []},
        {"counts": {"a" * (n + 1): 1 for n in range(10)} | {"b-" + "c" * n: 1 for n in range(38)}
         | {"d-" + "e" * n: 1 for n in range(38)} | {"f-" + "g" * n: 1 for n in range(38)},
         "notes": []},
        {"counts": {}, "notes": [GOOD]},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD, GOOD]},
        {"counts": {"socket-skipped": 1}, "notes": ["a"]},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD | {"path": 1}]},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD | {"path": "\ud800"}]},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD | {"detail": None}]},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD | {"kind": "A"}]},
        {"counts": {"socket-skipped": 1}, "notes": [{"kind": "socket-skipped"}]},
        {"counts": {"socket-skipped": 2 * KEPT}, "notes": [GOOD] * (KEPT + 1)},
        {"counts": {"socket-skipped": 1}, "notes": [GOOD | {"path": "a" * (KEPT_BYTES + 1)}]},
    ],
)  # fmt: skip
def test_malformed_report_is_refused(value: object) -> None:
    with pytest.raises(StreamError):
        Report.from_json(value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.just("socket-skipped"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["counts", "notes", "kind", "path", "detail", "socket-skipped"]),
                inner,
            )
        ),
    )
)
def test_any_json_is_a_report_or_refused(value: object) -> None:
    try:
        report = Report.from_json(value)
    except StreamError:
        return
    assert through_json(report).to_json() == report.to_json()
