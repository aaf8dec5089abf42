"""Sizes of homes where this kernel can hold them to one, and what is said where it cannot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import volumes
from tests.service import converting, people
from tests.service.converting import convert
from tests.service.people import PASSWORD, secret
from tests.service.site import Service, Site, short
from tests.service.sizes import SIZE, figures, take, take_up_to_the_limit
from tests.service.test_snapshots import homemgr

AS_RECORDED = (1 << 64) - 1
LARGEST = AS_RECORDED - 1


@pytest.fixture
def on_btrfs(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Service]:
    """A service whose homes lie on btrfs."""
    site = new_site()
    volumes.mount_image(tmp_path / "image", "btrfs", site.home_root)
    service = Service(site)
    yield service
    service.call("DeactivateAllHomes")
    service.close()
    mounts.umount2(str(site.home_root), 0)


def test_a_subvolume_is_kept_to_its_size(on_btrfs: Service) -> None:
    on_btrfs.create("anna", storage="subvolume", diskSize=SIZE)
    on_btrfs.create("bert", storage="subvolume")
    on_btrfs.activate("anna")
    on_btrfs.activate("bert")
    take_up_to_the_limit(on_btrfs, "anna", SIZE)
    assert take(on_btrfs, "bert", 2 * SIZE) == 0
    seen = figures(on_btrfs, "anna")
    assert seen["diskSize"] == SIZE
    assert seen["fileSystemType"] == "btrfs"
    for size in (SIZE - 4096, 1, (5 << 40) + 4096, 1 << 60):
        error = on_btrfs.error("ResizeHome", "sts", "anna", size, secret(PASSWORD))
        assert error == "BadHomeSize"
    on_btrfs.call("ResizeHome", "sts", "anna", 2 * SIZE, secret(PASSWORD))
    assert take(on_btrfs, "anna", SIZE // 2) == 0
    # As much as there is.
    on_btrfs.call("ResizeHome", "sts", "bert", LARGEST, secret(PASSWORD))
    disk = os.statvfs(on_btrfs.site.home_root)
    recorded = on_btrfs.user_record("bert")["perMachine"][-1]
    assert recorded["diskSize"] == disk.f_blocks * disk.f_frsize
    assert recorded["rebalanceWeight"] == 0


def test_a_directory_of_btrfs_cannot_be_kept_to_a_size(on_btrfs: Service) -> None:
    on_btrfs.create("carl", diskSize=SIZE, luksDiscard=True)
    assert "home area carl has no effect" in on_btrfs.site.log.read_text()
    before = on_btrfs.site.digest()
    failure = on_btrfs.failure("ResizeHome", "sts", "carl", AS_RECORDED, secret(PASSWORD))
    assert short(failure.name) == "NotSupported"
    assert "storage subvolume" in failure.message
    assert on_btrfs.site.digest() == before
    # It has more in it than where it would be kept to its size.
    path = on_btrfs.site.base / "carl.homedir/large"
    path.write_bytes(os.urandom(SIZE + 1))
    os.chown(path, 65534, 65534)
    with pytest.raises(BusError, match="more than its size allows") as refused:
        convert(on_btrfs, "carl", storage="subvolume")
    assert short(refused.value.name) == "BadHomeSize"
    assert convert(on_btrfs, "carl", storage="subvolume", disk_size=2 * SIZE)["phase"] == "kept"
    # A size that was chosen here counts less than the one that is asked for now.
    converting.call(on_btrfs, "ConfirmConversion", "s", "carl")
    on_btrfs.call("ResizeHome", "sts", "carl", 4 * SIZE, secret(PASSWORD))
    for wrong in (0, 1, 1 << 60):
        with pytest.raises(BusError, match="bytes"):
            convert(on_btrfs, "carl", storage="image", disk_size=wrong)
    convert(on_btrfs, "carl", storage="image", disk_size=5 * SIZE)
    assert (on_btrfs.site.base / "carl.homeimage").stat().st_size == 5 * SIZE


def test_where_nothing_is_counted_it_says_what_would_count(service: Service) -> None:
    service.create("yuri")
    before = service.site.digest()
    failure = service.failure("ResizeHome", "sts", "yuri", SIZE, secret(PASSWORD))
    assert short(failure.name) == "NotSupported"
    assert "prjquota" in failure.message
    assert service.site.digest() == before
    # There is no right size, as systemd-homed has it as well.
    for size in (0, 1, 1 << 60, LARGEST):
        assert service.error("ResizeHome", "sts", "yuri", size, secret(PASSWORD)) == "NotSupported"
    assert service.error("ResizeHome", "sts", "yuri", SIZE, "{}") == "BadPassword"
    seen = figures(service, "yuri")
    disk = os.statvfs(service.site.base)
    assert seen["diskSize"] == disk.f_blocks * disk.f_frsize
    assert "diskUsage" not in seen
    assert seen["diskFloor"] == 5 << 20
    assert seen["fileSystemType"] == "ext4"


def test_resizing_to_the_recorded_size_needs_one(service: Service) -> None:
    service.create("yvonne")
    as_recorded = ("ResizeHome", "sts", "yvonne", AS_RECORDED, secret(PASSWORD))
    assert service.error(*as_recorded) == "InvalidArgs"
    service.call("UpdateHome", "s", people.text(people.record("yvonne", diskSize=1 << 30)))
    assert service.error(*as_recorded) == "NotSupported"


def test_rebalancing_is_answered_as_where_no_home_takes_part(service: Service) -> None:
    assert service.error("Rebalance") == "RebalanceNotNeeded"


def test_a_home_that_is_restored_keeps_its_size(on_btrfs: Service) -> None:
    on_btrfs.create("dora", storage="subvolume", diskSize=SIZE)
    for words in (("create", "dora", "first"), ("restore", "dora", "first")):
        homemgr(on_btrfs, *words)
    on_btrfs.activate("dora")
    take_up_to_the_limit(on_btrfs, "dora", SIZE)


def test_a_record_that_names_no_whole_blocks_stays_as_it_is(on_btrfs: Service) -> None:
    on_btrfs.create("emil", storage="subvolume", diskSize=SIZE + 1)
    signed = on_btrfs.user_record("emil")["signature"]
    on_btrfs.call("ResizeHome", "sts", "emil", AS_RECORDED, secret(PASSWORD))
    assert on_btrfs.user_record("emil")["signature"] == signed
    on_btrfs.activate("emil")
    take_up_to_the_limit(on_btrfs, "emil", SIZE)
