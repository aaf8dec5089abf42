"""Homes in plain images get other sizes: in use, closed, and killed anywhere in it."""

from __future__ import annotations

import pytest

from tests.service import resizing
from tests.service.people import PASSWORD, secret
from tests.service.resizing import MIB, SIZES
from tests.service.site import Service, wait_until
from tests.service.test_plain_images import alone as alone
from tests.service.test_plain_images import create, loops_of
from tests.service.test_plain_images import running as running


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_home_grows_under_its_user_and_shrinks_as_far_as_it_can(
    running: Service, kind: str
) -> None:
    image = create(running, "anna", fileSystemType=kind, diskSize=SIZES[kind][0] * MIB)
    resizing.check_sizes(running, image, kind)


@pytest.mark.parametrize(("kind", "is_active"), [("btrfs", True), ("btrfs", False), ("xfs", True)])
def test_killed_anywhere_it_has_one_of_both_sizes_and_all_its_files(
    alone: Service, kind: str, *, is_active: bool
) -> None:
    image = create(alone, "anna", fileSystemType=kind, diskSize=SIZES[kind][0] * MIB)

    def wait_until_gone() -> None:
        wait_until(lambda: loops_of(alone) == [], "the devices to go")

    resizing.check_kills(alone, image, kind, wait_until_gone, is_active=is_active)


def test_an_ext4_that_nobody_uses_shrinks_as_far_as_it_can(running: Service) -> None:
    image = create(running, "anna", diskSize=64 * MIB)
    running.activate("anna")
    digest = resizing.write(running, "anna", "kept", 5 * MIB)
    refused = running.failure("ResizeHome", "sts", "anna", 48 * MIB, secret(PASSWORD))
    assert refused.name.endswith(".BadHomeSize")
    running.deactivate("anna")
    refused = running.failure("ResizeHome", "sts", "anna", 6 * MIB, secret(PASSWORD))
    assert refused.name.endswith(".BadHomeSize")
    before = image.stat()
    assert before.st_size == 64 * MIB
    resizing.resize(running, "anna", 0)
    assert 6 * MIB < image.stat().st_size < 40 * MIB
    assert (image.stat().st_mode, image.stat().st_uid) == (before.st_mode, before.st_uid)
    running.activate("anna")
    assert resizing.holds(running, "anna", "kept", digest)
    running.deactivate("anna")
