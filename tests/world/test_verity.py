"""Signed images on a kernel that has device-mapper, which that of this machine may lack."""

from __future__ import annotations

import sys

import pytest

from . import uml

# Boots in two seconds; each of the tests in it takes less than one.
TIMEOUT_S = 180


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_signed_images_are_verified_by_the_kernel(machine: None) -> None:
    tests = ["tests/kernel/verity", "tests/service/verity"]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    # With CI set nothing may be skipped in there.
    done = uml.run(argv, TIMEOUT_S, HOMEMGR_TEST_VERITY="1", CI="true")
    assert done.status == 0, f"{done.output}\n{done.console[-4000:]}"
