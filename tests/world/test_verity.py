"""What the kernel of this machine may lack, on others: dm-verity, fs-verity and dm-crypt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from . import guest

if TYPE_CHECKING:
    from .guest import Kind

# Several times what they take.
TIMEOUT_S = 240


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize(
    ("kind", "setting", "tests"),
    [
        ("uml", "HOMEMGR_TEST_VERITY", ("tests/kernel/verity", "tests/service/verity")),
        ("uml", "HOMEMGR_TEST_CRYPT", ("tests/service/luks",)),
        ("qemu", "HOMEMGR_TEST_FSVERITY", ("tests/kernel/fsverity",)),
    ],
)
def test_the_kernel_verifies_and_encrypts(
    machine: None, kind: Kind, setting: str, tests: tuple[str, ...]
) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    # With CI set nothing may be skipped in there.
    done = guest.run(kind, argv, TIMEOUT_S, **{setting: "1", "CI": "true"})
    assert done.status == 0, f"{done.output}\n{done.console[-4000:]}"
