"""Encrypted homes get other sizes: in use, closed, and killed anywhere in it."""

from __future__ import annotations

import pytest

from tests import verifying
from tests.service import resizing
from tests.service.luks.test_luks import create, image_of
from tests.service.resizing import MIB, SIZES
from tests.service.site import Service


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_home_grows_under_its_user_and_shrinks_as_far_as_it_can(
    encrypting: Service, kind: str
) -> None:
    create(encrypting, "anna", fileSystemType=kind, diskSize=SIZES[kind][0] * MIB)
    resizing.check_sizes(encrypting, image_of(encrypting, "anna"), kind)


@pytest.mark.parametrize(("kind", "is_active"), [("ext4", False), ("ext4", True), ("btrfs", True)])
def test_killed_anywhere_it_has_one_of_both_sizes_and_all_its_files(
    encrypting: Service, kind: str, *, is_active: bool
) -> None:
    size = SIZES[kind][0] * MIB
    create(encrypting, "anna", fileSystemType=kind, diskSize=size, rateLimitBurst=1000)
    image = image_of(encrypting, "anna")
    resizing.check_kills(encrypting, image, kind, verifying.wait_until_gone, is_active=is_active)
