"""Every step of one scenario against systemd-homed and against this service, in the same run.

What differs is either listed in tests/parity/intended.py with its reason, or a fault. What is
listed and does not differ any more is taken off the list.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.parity import boxes
from tests.parity.compare import Difference, differences
from tests.parity.intended import INTENDED, SINCE_252, Intended, unexplained, unused

from .box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator


#: The home goes with its last reference, as it does with systemd-homed.
FILES = {"/etc/homemgr/homemgr.conf": "[Home]\nGraceSec=0\n"}
#: Both boxes are the same machine: its id is in every record.
MACHINE_ID = "5" * 32
#: What unmodified clients of 252 do; the bus interface is that of 262 and compared with it.
CLIENTS_OF_252 = (
    *("create_by_homectl", "update_by_homectl", "clients_of_the_user_database"),
    *("dry_run", "pam", "sessions", "by_homectl", "by_login_programs"),
)
BASES: dict[str, tuple[tuple[str, ...], tuple[Intended, ...]]] = {
    "sid": ((), INTENDED),
    "debian12": (CLIENTS_OF_252, (*SINCE_252, *INTENDED)),
}
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Comparison:
    """One run of the scenario with both services on one distribution."""

    base: str
    homed: dict[str, object]
    ours: dict[str, object]

    @property
    def differences(self) -> list[Difference]:
        """All of them, meant or not."""
        return differences(self.homed, self.ours)


def run(daemon: str, base: str, sections: tuple[str, ...]) -> dict[str, object]:
    """The scenario in a box of its own."""
    box = Box(daemon, base=base, files=FILES)
    box.machine_id = MACHINE_ID
    with box:
        return boxes.outcomes(box, sections)


@pytest.fixture(scope="module", params=BASES)
def comparison(request: pytest.FixtureRequest, machine: None) -> Iterator[Comparison]:
    """Both at the same time: most of the scenario is waiting."""
    base, sections = request.param, BASES[request.param][0]
    with ThreadPoolExecutor() as runs:
        # In the one, homemgr lies ready and systemd-homed serves.
        homed = runs.submit(run, "both", base, sections)
        ours = runs.submit(run, "homemgr", base, sections)
        yield Comparison(base, homed.result(), ours.result())


def test_the_scenario_came_to_its_end(comparison: Comparison) -> None:
    assert list(comparison.homed) == list(comparison.ours)
    assert not [step for step in comparison.ours if step.endswith("broke off")]


def test_nothing_differs_but_what_is_meant(comparison: Comparison) -> None:
    base, (sections, meant) = comparison.base, BASES[comparison.base]
    found = unexplained(comparison.differences, meant)
    if found:
        # What systemd-homed does one time and not the next (a session that begins while the one
        # before is cleared away) is not what its clients expect: ours has to be like one of two.
        again = Comparison(base, run("both", base, sections), comparison.ours)
        found = [one for one in unexplained(again.differences, meant) if one in found]
    assert not found, "\n".join(
        f"{one.step}\n  {one.member}\n  systemd-homed: {one.homed!r} {said(comparison.homed, one)}"
        f"\n  homemgr: {one.ours!r} {said(comparison.ours, one)}"
        for one in found
    )


def test_all_that_is_meant_still_differs(comparison: Comparison) -> None:
    # The scenario of 252 is a part of the other.
    meant = SINCE_252 if comparison.base == "debian12" else INTENDED
    assert unused(comparison.differences, meant) == []


def said(outcomes: dict[str, object], one: Difference) -> str:
    """What the service told people at that step."""
    outcome = outcomes.get(one.step)
    return str(outcome.get("said", "")) if isinstance(outcome, dict) else ""
