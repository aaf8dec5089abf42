"""Samples of activations with extensions become costs, ratios and a verdict."""

from __future__ import annotations

from tests.bench import extension


def samples(many_s: float) -> extension.Samples:
    return {
        "activations": {"without": [0.02, 0.03, 9.0], "few": [0.035], "many": [many_s]},
        "operations": {"stat": {"plain": [2e-6], "idmapped": [2.5e-6], "overlay": [3e-6]}},
    }


def test_the_cost_is_what_an_extension_adds_to_the_median() -> None:
    found = extension.costs(samples(0.05))
    assert {name: round(cost, 6) for name, cost in found.items()} == {"few": 0.005, "many": 0.02}


def test_both_sizes_have_to_stay_within_the_goal() -> None:
    assert extension.is_met(samples(0.0499))
    assert not extension.is_met(samples(0.0501))


def test_the_tables_name_files_goals_and_ratios() -> None:
    shown = extension.render(samples(0.06), 100_000)
    assert "extension of 100,000 files  60.00 ms  30.00 ms  ≤ 20.00 ms  NOT MET" in shown
    assert "stat" in shown
    assert "1 : 1.25 : 1.50" in shown
