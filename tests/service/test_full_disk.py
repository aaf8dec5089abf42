"""No space left: said by its name, and nothing half made stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from tests import volumes
from tests.service import people
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import Service, Site, wait_until
from tests.volumes import fill


@pytest.fixture
def small_disk(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Service]:
    """A service whose homes lie on a tiny file system."""
    site = new_site()
    image, place = tmp_path / "image", site.home_root
    volumes.mount_image(image, "ext4", place, 2 * volumes.MIB)
    service = Service(site)
    yield service
    service.close()
    mounts.umount2(str(place), 0)


@pytest.fixture
def small_state(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A service whose records lie on a tiny file system."""
    with small_state_of(new_site()) as service:
        yield service


@contextmanager
def small_state_of(site: Site) -> Iterator[Service]:
    """A service on ``site`` whose records lie on a tiny file system."""
    site.records.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", site.records, size="64k", mode="0700")
    service = Service(site)
    yield service
    service.close()
    mounts.umount2(str(site.records), 0)


@pytest.fixture
def skeleton(ground: Path) -> Path:
    """More than fits on the small disk."""
    path = ground / "skeleton"
    path.mkdir(exist_ok=True)
    for number in range(3):
        (path / f"file{number}").write_bytes(os.urandom(1 << 20))
    return path


def test_disk_that_fills_up_during_create_leaves_nothing(
    small_disk: Service, skeleton: Path
) -> None:
    before = small_disk.site.digest()
    record = people.text(people.record("anna", skeletonDirectory=str(skeleton)))
    for _ in range(3):
        assert small_disk.error("CreateHome", "s", record) == "NoDiskSpace"
        left = small_disk.site.digest()
        left.pop(str(small_disk.site.base), None)
        assert left == before
        assert small_disk.states() == {}
    small_disk.create("anna")
    small_disk.activate("anna")
    small_disk.deactivate("anna")


def test_full_disk_is_said_so_and_creation_works_once_there_is_space(small_disk: Service) -> None:
    small_disk.create("bert")
    ballast = fill(small_disk.site.home_root)
    before = small_disk.site.digest()
    record = people.text(people.record("anna"))
    assert small_disk.error("CreateHome", "s", record) == "NoDiskSpace"
    assert small_disk.site.digest() == before
    ballast.unlink()
    small_disk.create("anna")


def test_home_on_a_full_disk_can_still_be_used(small_disk: Service) -> None:
    small_disk.create("cleo")
    small_disk.activate("cleo")
    small_disk.deactivate("cleo")
    fill(small_disk.site.home_root)
    small_disk.activate("cleo")
    small_disk.deactivate("cleo")
    change = ("cleo", secret(OTHER_PASSWORD), secret(PASSWORD))
    assert small_disk.error("ChangePasswordHome", "sss", *change) == "NoDiskSpace"
    small_disk.call("AuthenticateHome", "ss", "cleo", secret(PASSWORD))


def test_full_disk_that_cannot_take_a_newer_record_lets_the_user_in(small_disk: Service) -> None:
    """The record inside was lost, or is older than the one of this machine."""
    small_disk.create("ida")
    small_disk.activate("ida")
    small_disk.deactivate("ida")
    identity = small_disk.site.base / "ida.homedir" / ".identity"
    identity.unlink()
    ballast = fill(small_disk.site.home_root)
    small_disk.call("AuthenticateHome", "ss", "ida", secret(PASSWORD))
    with small_disk.acquire("ida"):
        assert small_disk.state("ida") == "active"
    small_disk.wait_for("ida", "inactive")
    assert not identity.exists()
    ballast.unlink()
    small_disk.activate("ida")
    small_disk.deactivate("ida")
    assert identity.exists()


def test_full_record_directory_leaves_no_home_without_a_record(small_state: Service) -> None:
    small_state.create("dirk")
    ballast = fill(small_state.site.records)
    before = small_state.site.digest()
    record = people.text(people.record("elsa"))
    assert small_state.error("CreateHome", "s", record) == "NoDiskSpace"
    assert small_state.site.digest() == before
    assert set(small_state.states()) == {"dirk"}
    ballast.unlink()
    small_state.create("elsa")
    small_state.restart()
    assert small_state.states() == {"dirk": "inactive", "elsa": "inactive"}


def test_full_record_directory_leaves_no_image_without_a_record(
    new_site: Callable[..., Site],
) -> None:
    site = new_site(DefaultStorage="image")
    with small_state_of(site) as service:
        service.create("dirk", diskSize=32 * volumes.MIB)
        ballast = fill(site.records)
        before = site.digest()
        # Not in the record how it is stored: that is the service's choice.
        record = people.text(people.record("elsa", diskSize=32 * volumes.MIB))
        assert service.error("CreateHome", "s", record) == "NoDiskSpace"
        assert site.digest() == before
        assert set(service.states()) == {"dirk"}
        ballast.unlink()


def test_full_record_directory_keeps_nobody_from_logging_in(small_state: Service) -> None:
    small_state.create("falk")
    small_state.activate("falk")
    small_state.deactivate("falk")
    fill(small_state.site.records)
    with small_state.acquire("falk"):
        assert small_state.state("falk") == "active"
    small_state.wait_for("falk", "inactive")


def test_password_changed_while_records_cannot_be_saved_is_one_of_the_two(
    small_state: Service,
) -> None:
    small_state.create("gerd", enforcePasswordPolicy=False)
    ballast = fill(small_state.site.records)
    change = ("gerd", secret(OTHER_PASSWORD), secret(PASSWORD))
    assert small_state.error("ChangePasswordHome", "sss", *change) == "NoDiskSpace"
    ballast.unlink()
    small_state.restart()
    small_state.call("AuthenticateHome", "ss", "gerd", secret(PASSWORD, OTHER_PASSWORD))
    small_state.activate("gerd", OTHER_PASSWORD)
    small_state.deactivate("gerd")


def test_home_whose_record_cannot_be_saved_lets_its_user_in(small_state: Service) -> None:
    small_state.site.plant("hugo")
    small_state.wait_for("hugo", "unfixated")
    ballast = fill(small_state.site.records)
    with small_state.acquire("hugo"):
        assert small_state.state("hugo") == "active"
    small_state.wait_for("hugo", "inactive")
    ballast.unlink()
    with small_state.acquire("hugo"):
        stored = small_state.site.records / "hugo.identity"
        wait_until(stored.exists, "the record to be saved")
    small_state.wait_for("hugo", "inactive")
