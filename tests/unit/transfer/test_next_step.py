"""What a sender does next, from where both machines stand."""

from __future__ import annotations

import pytest

from homemgr import errors
from homemgr.work.wanted import Options, next_step

MOVE = Options(is_kept=False, is_undone=False, wait_s=0)
KEEP = MOVE._replace(is_kept=True)
UNDO = MOVE._replace(is_undone=True)


@pytest.mark.parametrize(
    ("here", "there", "options", "step"),
    [
        ("sending", "new", MOVE, "passes"),
        ("sending", "prepared", MOVE, "passes"),
        ("leaving", "receiving", MOVE, "passes"),
        ("leaving", "prepared", MOVE, "commit"),
        ("leaving", "committed", MOVE, "commit"),
        ("left", "committed", MOVE, "commit"),
        ("sending", "prepared", KEEP, "passes"),
        ("leaving", "gone", KEEP, "passes"),
        ("leaving", "prepared", UNDO, "undo"),
        ("left", "committed", UNDO, "undo"),
    ],
)
def test_it_goes_on_where_both_stand(here: str, there: str, options: Options, step: str) -> None:
    assert next_step(here, there, options) == step


@pytest.mark.parametrize(("here", "there"), [("leaving", "prepared"), ("left", "committed")])
def test_who_wants_a_copy_does_not_move_the_home(here: str, there: str) -> None:
    with pytest.raises(errors.HomeMoved, match="without --keep"):
        next_step(here, there, KEEP)


@pytest.mark.parametrize("options", [MOVE, KEEP, UNDO])
@pytest.mark.parametrize("here", ["leaving", "left"])
def test_what_went_on_from_there_does_not_come_back(here: str, options: Options) -> None:
    """What is kept here is older than what somebody works with elsewhere."""
    with pytest.raises(errors.HomeMoved, match="went on to gamma"):
        next_step(here, "new", options, "gamma")
    assert next_step("sending", "new", MOVE, "gamma") == "passes"
