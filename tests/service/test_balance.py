"""Homes in images on one disk share its free space out, and grow to what their records say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.kernel.lock import try_lock_byte
from homemgr.storage import turns
from tests import volumes
from tests.service import people, resizing
from tests.service.resizing import MIB
from tests.service.site import Service, Site, wait_until
from tests.service.test_plain_images import SETTINGS, image_of, loops_of

POOL = 3072 * MIB
#: Of a home before anything is shared out.
SIZE = 320 * MIB
SHARED = {**SETTINGS, "fileSystemType": "btrfs", "diskSize": SIZE}


@pytest.fixture(scope="module")
def on_own_disk(
    new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service whose homes have a disk of their own."""
    site = new_site()
    image = tmp_path_factory.mktemp("pool") / "image"
    volumes.mount_image(image, "ext4", site.home_root, POOL)
    service = Service(site)
    yield service
    service.close()
    mounts.umount2(str(site.home_root), 0)
    image.unlink()


@pytest.fixture
def pool(on_own_disk: Service) -> Iterator[Service]:
    """The same, without homes."""
    yield on_own_disk
    on_own_disk.call("DeactivateAllHomes")
    for name in on_own_disk.states():
        on_own_disk.call("RemoveHome", "s", name)
    wait_until(lambda: loops_of(on_own_disk) == [], "the devices to go")


def size_of(service: Service, name: str) -> int:
    return image_of(service, name).stat().st_size


def room_for(service: Service, name: str) -> int:
    """Bytes that the user can still write, as the service counts them."""
    (status,) = service.user_record(name)["status"].values()
    free: int = dict(status)["diskFree"]
    return free


def test_free_space_is_shared_out_by_weight_among_those_logged_in(pool: Service) -> None:
    pool.create("anna", rebalanceWeight=100, **SHARED)
    pool.create("bert", rebalanceWeight=300, **SHARED)
    before = pool.user_record("anna")
    assert pool.error("Rebalance") == "RebalanceNotNeeded"
    pool.activate("anna")
    digest = resizing.write(pool, "anna", "kept", 5 * MIB)
    # After a login by itself, and once more by request: five parts of six are hers.
    wait_until(lambda: size_of(pool, "anna") > SIZE, "the home to grow", 15)
    pool.call("Rebalance")
    alone = size_of(pool, "anna")
    assert POOL * 2 // 3 < alone < POOL
    pool.activate("bert")
    pool.call("Rebalance")
    anna, bert = room_for(pool, "anna"), room_for(pool, "bert")
    assert 2.7 < bert / anna < 3.3
    assert anna + bert < POOL
    assert size_of(pool, "anna") < alone // 2
    assert resizing.holds(pool, "anna", "kept", digest)
    # What they say of themselves, and who signed it, is as it was.
    after = pool.user_record("anna")
    assert [after[name] for name in ("signature", "diskSize")] == [
        before[name] for name in ("signature", "diskSize")
    ]
    for name in ("anna", "bert"):
        pool.deactivate(name)
    assert pool.error("Rebalance") == "RebalanceNotNeeded"
    pool.activate("anna")
    assert resizing.holds(pool, "anna", "kept", digest)


def test_killed_anywhere_all_files_are_there(pool: Service) -> None:
    names = ("carl", "dora")
    for name in names:
        pool.create(name, rebalanceWeight=100, **SHARED)
    pool.activate("carl")
    pool.call("Rebalance")
    digest = resizing.write(pool, "carl", "kept", 20 * MIB)
    for delay_s in (0.02, 0.06, 0.15):
        # Their space is shared with somebody else each time: one shrinks, one grows.
        pool.activate("dora")
        sharing = pool.begin("Rebalance")
        time.sleep(delay_s)
        pool.kill()
        sharing.failure()
        pool.start()
        assert resizing.holds(pool, "carl", "kept", digest)
        for name in names:
            pool.deactivate(name)
        wait_until(lambda: loops_of(pool) == [], "the devices to go")
        pool.activate("carl")
        assert resizing.holds(pool, "carl", "kept", digest)
        pool.call("Rebalance")


def test_nobody_who_logs_in_waits_for_it(pool: Service) -> None:
    pool.create("emil", rebalanceWeight=100, **SHARED)
    pool.activate("emil")
    for _ in range(5):
        sharing = pool.begin("Rebalance")
        for _ in range(3):
            # No answer is "busy", and there is no failure.
            pool.acquire("emil").close()
        assert sharing.failure() in ("", "RebalanceNotNeeded")
    pool.wait_for("emil", "inactive")


def test_what_cannot_shrink_while_it_is_used_takes_no_part(pool: Service) -> None:
    pool.create("frida", rebalanceWeight=100, **{**SETTINGS, "diskSize": 48 * MIB})
    pool.activate("frida")
    assert pool.error("Rebalance") == "RebalanceNotNeeded"
    assert size_of(pool, "frida") == 48 * MIB


def grow_to(service: Service, name: str, size: int) -> None:
    """Have the record ask for another size from its next login on."""
    fields = {**SETTINGS, "diskSize": size, "luksDiscard": False, "autoResizeMode": "grow"}
    changed = people.text(people.record(name, secret=None, **fields))
    service.call("UpdateHomeEx", "sa{sh}t", changed, {}, 1)


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_home_grows_to_its_size_after_a_login(pool: Service, kind: str) -> None:
    name = f"gerd-{kind}"
    small, large = (size * MIB for size in resizing.SIZES[kind])
    pool.create(name, **{**SETTINGS, "diskSize": small, "fileSystemType": kind})
    grow_to(pool, name, large)
    pool.activate(name)
    assert size_of(pool, name) == small
    digest = resizing.write(pool, name, "kept", 5 * MIB)
    before = resizing.room_in(pool, name)
    wait_until(lambda: size_of(pool, name) == large, "the home to grow", 15)
    wait_until(lambda: resizing.room_in(pool, name) > before, "its file system to grow", 15)
    assert resizing.holds(pool, name, "kept", digest)
    assert pool.state(name) == "active"
    pool.deactivate(name)
    assert size_of(pool, name) == large


def test_a_login_succeeds_where_there_is_no_room_to_grow(pool: Service) -> None:
    small = SIZE
    pool.create("hugo", **{**SHARED, "diskSize": small})
    grow_to(pool, "hugo", 100 * POOL)
    pool.activate("hugo")
    # As far as the disk has room, and some for others.
    wait_until(lambda: size_of(pool, "hugo") > small, "the home to grow", 15)
    assert size_of(pool, "hugo") < POOL
    assert pool.state("hugo") == "active"
    resizing.write(pool, "hugo", "kept", 5 * MIB)


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_login_succeeds_on_a_full_disk(pool: Service, kind: str) -> None:
    name = f"mia-{kind}"
    small, large = (size * MIB for size in resizing.SIZES[kind])
    pool.create(name, **{**SETTINGS, "diskSize": small, "fileSystemType": kind})
    pool.activate(name)
    digest = resizing.write(pool, name, "kept", 5 * MIB)
    leave(pool, name)
    wait_until(lambda: loops_of(pool) == [], "the device to go", 20)
    grow_to(pool, name, large)
    filler = pool.site.home_root / "filler"
    there, said = os.statvfs(pool.site.home_root), f"Home area {name} keeps its size: "
    try:
        with filler.open("wb") as file:
            # Quicker than `fill`, which takes the rest.
            os.posix_fallocate(file.fileno(), 0, there.f_bfree * there.f_frsize - 32 * MIB)
        ballast = volumes.fill(pool.site.home_root)
        for _ in range(2):
            pool.activate(name)
            assert resizing.holds(pool, name, "kept", digest)
            wait_until(lambda: said in pool.site.log.read_text(), "it to be tried", 15)
            assert pool.state(name) == "active"
            leave(pool, name)
            assert size_of(pool, name) == small
    finally:
        filler.unlink()
        ballast.unlink()
    pool.activate(name)
    wait_until(lambda: size_of(pool, name) == large, "the home to grow", 15)
    assert resizing.holds(pool, name, "kept", digest)


def leave(service: Service, name: str) -> None:
    """Log out; that is over while more goes on."""
    service.deactivate(name)
    assert service.state(name) == "inactive"


FOLLOWING = {**SHARED, "diskSize": 1024 * MIB, "autoResizeMode": "shrink-and-grow"}


def test_a_home_is_small_while_nobody_uses_it(pool: Service) -> None:
    pool.create("ilse", **FOLLOWING)
    image, size = image_of(pool, "ilse"), 1024 * MIB
    for _ in range(2):
        pool.activate("ilse")
        wait_until(lambda: size_of(pool, "ilse") == size, "the home to grow", 15)
        digest = resizing.write(pool, "ilse", "kept", 20 * MIB)
        leave(pool, "ilse")
        wait_until(lambda: loops_of(pool) == [], "the device to go", 20)
        assert image.stat().st_size < SIZE
    pool.activate("ilse")
    assert resizing.holds(pool, "ilse", "kept", digest)


def test_whoever_comes_back_does_not_wait_for_it(pool: Service) -> None:
    pool.create("jan", **FOLLOWING)
    digest = b""
    for number in range(5):
        pool.activate("jan")
        if number:
            assert resizing.holds(pool, "jan", "kept", digest)
        digest = resizing.write(pool, "jan", "kept", 30 * MIB)
        # And nobody is told that it is busy.
        leave(pool, "jan")
        time.sleep(0.02 * number)
    pool.activate("jan")
    wait_until(lambda: size_of(pool, "jan") == 1024 * MIB, "the home to grow", 15)
    pool.call("DeactivateAllHomes")
    # At the end of the machine nothing of it goes on, or was begun.
    assert loops_of(pool) == []
    assert size_of(pool, "jan") == 1024 * MIB


def test_killed_while_it_gets_smaller_all_files_are_there(pool: Service) -> None:
    pool.create("karl", **FOLLOWING)
    for delay_s in (0.0, 0.03, 0.1):
        pool.activate("karl")
        digest = resizing.write(pool, "karl", "kept", 30 * MIB)
        leave(pool, "karl")
        time.sleep(delay_s)
        pool.kill()
        pool.start()
        pool.activate("karl")
        assert resizing.holds(pool, "karl", "kept", digest)
        leave(pool, "karl")


def test_nothing_is_moved_in_an_image_where_the_disk_has_no_room_for_that(pool: Service) -> None:
    pool.create("lena", **FOLLOWING)
    filler = pool.site.home_root / "filler"
    pool.activate("lena")
    wait_until(lambda: size_of(pool, "lena") == 1024 * MIB, "the home to grow", 15)
    digest = resizing.write(pool, "lena", "kept", 20 * MIB)
    os.sync()
    there = os.statvfs(pool.site.home_root)
    Path(turns.FILE).parent.mkdir(exist_ok=True)
    try:
        with Fd.open(turns.FILE, os.O_RDWR | os.O_CREAT, 0o600) as others:
            # As if another image there was getting smaller, and took all the room for that.
            assert try_lock_byte(others.fileno(), pool.site.home_root.stat().st_dev)
            leave(pool, "lena")
            wait_until(lambda: "waits for its turn" in pool.site.log.read_text(), "it to wait")
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, there.f_bavail * there.f_frsize - 24 * MIB)
        # The kernel could not write to it, and would let nobody do so from then on.
        wait_until(lambda: loops_of(pool) == [], "the device to go", 20)
        assert size_of(pool, "lena") == 1024 * MIB
        assert "are needed to move files in it" in pool.site.log.read_text()
        pool.activate("lena")
        assert resizing.holds(pool, "lena", "kept", digest)
    finally:
        filler.unlink()
    leave(pool, "lena")
    wait_until(lambda: size_of(pool, "lena") < SIZE, "the home to get smaller", 20)
