"""Homes in plain images get other sizes: in use, closed, and killed anywhere in it."""

from __future__ import annotations

import os

import pytest

from homemgr.files import Fd
from homemgr.storage import image_layout, image_parts
from homemgr.storage.image_parts import Part
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


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_killed_before_its_file_system_grew_it_grows_by_the_same_command(
    running: Service, kind: str
) -> None:
    small, large = (size * MIB for size in SIZES[kind])
    image = create(running, "anna", fileSystemType=kind, diskSize=small)
    running.activate("anna")
    digest = resizing.write(running, "anna", "kept", 5 * MIB)
    before = resizing.room_in(running, "anna")
    running.deactivate("anna")
    wait_until(lambda: loops_of(running) == [], "the device to go")
    with Fd.open(str(image), os.O_RDWR) as file:
        *_, home = image_parts.partitions(file, str(image))
        part = Part(home.start, home.size, home.guid)
        old = image_layout.layout_of(file, str(image), part)
        image_layout.grow(file, old, image_layout.resized(old, part, large), is_sparse=True)
    running.activate("anna")
    assert (image.stat().st_size, resizing.room_in(running, "anna")) == (large, before)
    assert resizing.holds(running, "anna", "kept", digest)
    resizing.resize(running, "anna", large)
    assert resizing.room_in(running, "anna") - before > (large - small) * 3 // 4
    assert resizing.holds(running, "anna", "kept", digest)
    running.deactivate("anna")


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
