"""Samples become medians, ratios and verdicts."""

from __future__ import annotations

from tests.bench import table
from tests.bench.inside.plan import SMALL, Plan


def one_row(key: str, ours: list[list[float]], homed: list[list[float]]) -> table.Row:
    samples = {
        "ours": [{key: values} for values in ours],
        "homed": [{key: values} for values in homed],
    }
    (row,) = table.rows(samples)
    return row


def test_a_ratio_is_that_of_the_medians_over_all_rounds() -> None:
    row = one_row("activate", [[0.01, 0.02, 9.0], [0.03, 0.03, 0.03]], [[0.1, 0.1], [0.1, 0.3]])
    assert (row.ours, row.homed, row.is_met) == (0.03, 0.1, True)
    assert row.ratios == (0.02 / 0.1, 0.03 / 0.2)
    assert row.cells() == (
        *("activate, 10 files", "30.00 ms", "100.00 ms", "0.30", "0.15..0.20"),
        *("≤ 0.5 of it", "met"),
    )


def test_more_logins_are_better() -> None:
    assert one_row("storm", [[60.0]], [[30.0]]).is_met is True
    assert one_row("storm", [[50.0]], [[30.0]]).is_met is False


def test_a_limit_needs_no_other_service() -> None:
    row = one_row("list many", [[0.2]], [])
    assert (row.homed, row.ratio, row.is_met) == (None, None, False)
    assert row.cells()[-2:] == ("≤ 100.00 ms", "NOT MET")


def test_nothing_divides_by_nothing() -> None:
    row = one_row("idle", [[0.0]], [[0.0]])
    assert (row.ratio, row.ratios, row.is_met) == (None, (), True)


def test_figures_without_a_goal_are_not_judged() -> None:
    assert one_row("start many", [[7.0]], []).is_met is None


def test_what_was_not_measured_has_no_row() -> None:
    assert table.rows({"ours": [{"list": [1.0]}], "homed": []})[0].goal.key == "list"
    assert table.render([]).split()[0] == "what"


def test_a_plan_reaches_the_box_as_one_word() -> None:
    for plan in (Plan(), SMALL):
        assert Plan.from_json(plan.to_json()) == plan
        assert " " not in plan.to_json()
