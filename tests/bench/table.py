"""From samples to a table: medians, ratios, verdicts. Pure; knows no box and no service."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from .goals import GOALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .goals import Goal
    from .inside.samples import Samples, Turn

HEAD = ("what", "ours", "homed 262", "ratio", "of rounds", "goal", "")
VERDICTS = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True)
class Row:
    """One figure of a run."""

    goal: Goal
    ours: float
    homed: float | None
    #: Round by round: how much of the ratio is the machine's mood.
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """Our median over that of systemd-homed, if it was measured and is not nothing."""
        return self.ours / self.homed if self.homed else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        return self.goal.is_met(self.ours, self.ratio)

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of HEAD."""
        unit = self.goal.unit
        spread = f"{min(self.ratios):.2f}..{max(self.ratios):.2f}" if self.ratios else "-"
        return (
            self.goal.text,
            unit.show(self.ours),
            "-" if self.homed is None else unit.show(self.homed),
            "-" if self.ratio is None else f"{self.ratio:.2f}",
            spread,
            self.goal.describe(),
            VERDICTS[self.is_met],
        )


def rows(samples: Samples, goals: Sequence[Goal] = GOALS) -> list[Row]:
    """A row for each figure that was measured."""
    ours, homed = samples.get("ours", []), samples.get("homed", [])
    return [_row(goal, ours, homed) for goal in goals if any(goal.key in turn for turn in ours)]


def render(table: Sequence[Row]) -> str:
    """The table for people."""
    lines = [HEAD, *(row.cells() for row in table)]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of the same number of cells under each other."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_line(cells, widths) for cells in lines)


def _row(goal: Goal, ours: Sequence[Turn], homed: Sequence[Turn]) -> Row:
    mine, theirs = _medians(goal.key, ours), _medians(goal.key, homed)
    return Row(
        goal,
        _median_of_all(goal.key, ours),
        _median_of_all(goal.key, homed) if theirs else None,
        tuple(a / b for a, b in zip(mine, theirs, strict=False) if b),
    )


def _medians(key: str, turns: Sequence[Turn]) -> list[float]:
    return [median(turn[key]) for turn in turns if key in turn]


def _median_of_all(key: str, turns: Sequence[Turn]) -> float:
    return median([value for turn in turns for value in turn.get(key, [])])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    # Words to the left, figures to the right.
    shown = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "  ".join(shown).rstrip()
