"""A bounded run of tests/load: users, malformed messages and kills at once leave nothing behind."""

from __future__ import annotations

import pytest

from tests.load import run
from tests.load.inside.plan import SMALL


@pytest.mark.usefixtures("machine")
@pytest.mark.timeout(600)
def test_nothing_is_lost_stuck_or_left_under_load() -> None:
    found = run.run(SMALL)
    wrong = run.faults(found, SMALL)
    assert not wrong, "\n".join([*wrong, run.render(found)])
    assert {"log_in", "stay", "activate", "update", "look_up"} <= set(found["done"])
    assert all(answers["sent"] for answers in found["answers"].values())
    assert {"success", "InvalidArgs", "NoSuchHome"} <= set(found["answers"]["root"])
