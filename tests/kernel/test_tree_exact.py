"""An odd home is copied exactly, on and between the file systems we support."""

from __future__ import annotations

import os
from pathlib import Path

from tests import homes
from tests.kernel.travels import copy, make_top


def test_odd_home_is_copied_exactly(every_area: Path) -> None:
    here, there = make_top(every_area / "here"), make_top(every_area / "there")
    homes.make_odd_home(here)
    copy(here, there)
    assert homes.compare(here, there, atimes=True) == []


def test_odd_home_moves_between_file_systems(every_area: Path, area: Path) -> None:
    far, near, back = (
        make_top(path) for path in (every_area / "far", area / "near", area / "back")
    )
    homes.make_odd_home(near, seed=2)
    copy(near, far)
    copy(far, back)
    assert homes.compare(near, far, atimes=True) == []
    assert homes.compare(near, back, atimes=True) == []


def test_second_copy_over_the_first_changes_nothing(every_area: Path) -> None:
    here, there = make_top(every_area / "here"), make_top(every_area / "there")
    homes.make_odd_home(here, seed=3)
    copy(here, there)
    copy(here, there)
    assert homes.compare(here, there, atimes=True) == []
    assert len(os.listdir(there)) == len(os.listdir(here))
