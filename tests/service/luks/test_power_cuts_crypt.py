"""Encrypted images when the power goes: whole, and opened by exactly one password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.interrupted import Creation, Leave, Password, Shrinking, Use
from tests.service.interrupted_conversions import Conversion
from tests.service.test_power_cuts import ROUNDS, cases, check_power_cuts
from tests.service.test_power_cuts import new_machines as new_machines

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.cutting import Machine
    from tests.service.test_power_cuts import Case

CASES = [
    *cases(Conversion, "directory", "luks", ext4=1),
    *cases(Password, "luks", ext4=1, xfs=0, btrfs=0),
    *cases(Shrinking, "luks", ext4=0),
    *cases(Creation, "luks", ext4=0),
    *cases(Use, "luks", xfs=0),
    *cases(Leave, "luks", ext4=0),
]


@pytest.mark.parametrize("case", [case for case in CASES if case.rounds or ROUNDS], ids=str)
def test_an_encrypted_home_is_whole_after_a_power_cut(
    case: Case, new_machines: Callable[..., list[Machine]]
) -> None:
    check_power_cuts(case, new_machines)
