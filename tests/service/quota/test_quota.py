"""Homes held to a size by project quota, with users who try to take more."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts, quota
from homemgr.kernel.project import Project, get_project, set_project
from tests import plugs, volumes
from tests.service.people import PASSWORD, secret
from tests.service.site import Service, Site
from tests.service.sizes import MIB, SIZE, SLACK, as_user, figures, take, take_up_to_the_limit
from tests.service.test_snapshots import homemgr

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    # Debian 12 has none of it, nor has its kernel: both are of the guest's distribution.
    "f2fs": [*plugs.program("mkfs.f2fs"), "-q", "-f", "-O", "extra_attr,project_quota,quota"],
}
BYTES = {"f2fs": 128 * MIB}


@pytest.fixture(params=["ext4", "xfs", "f2fs"])
def counting(
    request: pytest.FixtureRequest, new_site: Callable[..., Site], tmp_path: Path
) -> Iterator[Service]:
    """A service whose homes lie where projects are held to their limits."""
    size = BYTES.get(request.param) or volumes.KINDS[request.param][0]
    with running_on(new_site(), tmp_path / "image", size, MAKE[request.param]) as service:
        yield service


@contextmanager
def running_on(site: Site, image: Path, size: int, make: Sequence[str]) -> Iterator[Service]:
    """A service whose homes lie in a new image, made so, where projects are held to limits."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)
    place = str(site.home_root)
    subprocess.run(["mount", "-o", "loop,prjquota", str(image), place], check=True)
    site.home_root.chmod(0o755)
    service = Service(site)
    yield service
    service.call("DeactivateAllHomes")
    service.close()
    mounts.umount2(place, 0)
    # The memory of the machine that this runs in is small.
    image.unlink()


def project_of(path: Path) -> Project:
    with Fd.open(str(path), os.O_RDONLY) as fd:
        return get_project(fd.fileno())


def test_a_size_is_kept_to_and_is_of_one_home_alone(counting: Service) -> None:
    counting.create("anna", diskSize=SIZE)
    counting.create("bert")
    counting.activate("anna")
    counting.activate("bert")
    take_up_to_the_limit(counting, "anna", SIZE)
    # Next to a full home there is room.
    assert take(counting, "bert", 2 * SIZE) == 0
    assert figures(counting, "anna")["diskSize"] == SIZE
    assert figures(counting, "anna")["diskFree"] <= SLACK
    assert figures(counting, "bert")["diskUsage"] >= 2 * SIZE

    grown = 2 * SIZE
    counting.call("ResizeHome", "sts", "anna", grown, secret(PASSWORD))
    assert counting.user_record("anna")["perMachine"][-1]["diskSize"] == grown
    take_up_to_the_limit(counting, "anna", grown)
    # What is in use cannot be taken away, and the refusal changes nothing.
    refused = counting.failure("ResizeHome", "sts", "anna", SIZE, secret(PASSWORD))
    assert refused.name.endswith(".BadHomeSize")
    assert counting.user_record("anna")["perMachine"][-1]["diskSize"] == grown
    counting.deactivate("anna")
    # As small as can be: what was deleted is room again.
    (image,) = counting.site.base.glob("anna.homedir")
    (image / "ballast").unlink()
    counting.call("ResizeHome", "sts", "anna", 0, secret(PASSWORD))
    assert counting.user_record("anna")["perMachine"][-1]["diskSize"] == 5 * MIB
    counting.activate("anna")
    take_up_to_the_limit(counting, "anna", 5 * MIB)


def test_a_home_that_was_never_counted_is_counted_whole(counting: Service) -> None:
    counting.create("carl")
    (image,) = counting.site.base.glob("carl.homedir")
    (image / "deep" / "er").mkdir(parents=True)
    (image / "deep" / "er" / "file").write_bytes(bytes(3 * MIB))
    (image / "link").symlink_to("deep")
    os.mkfifo(image / "fifo")
    own = project_of(image)
    everything = [image, *image.rglob("*")]
    for path in everything:
        os.chown(path, 65534, 65534, follow_symlinks=False)
        if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            # As where nothing was counted when it was made, or as its user may do himself.
            with Fd.open(str(path), os.O_RDONLY) as fd:
                set_project(fd.fileno(), Project(0, is_inherited=False))
    counting.call("ResizeHome", "sts", "carl", SIZE, secret(PASSWORD))
    new = project_of(image)
    assert new.number not in (0, own.number)
    assert project_of(image / "deep" / "er" / "file") == Project(new.number, is_inherited=False)
    assert project_of(image / "deep" / "er") == new
    with Fd.open(str(image), os.O_RDONLY) as fd:
        assert quota.usage(fd.fileno(), new.number).limit == SIZE
        assert quota.usage(fd.fileno(), new.number).usage >= 3 * MIB
    counting.activate("carl")
    take_up_to_the_limit(counting, "carl", SIZE)


def test_no_two_homes_share_a_project_and_what_moves_into_one_belongs_to_it(
    counting: Service,
) -> None:
    names = ["dora", "emil", "fred"]
    for name in names:
        counting.create(name)
    numbers = {project_of(counting.site.base / f"{name}.homedir").number for name in names}
    assert len(numbers) == len(names)
    assert 0 not in numbers


def test_a_home_that_is_restored_keeps_its_size(counting: Service) -> None:
    counting.create("gina", diskSize=SIZE)
    homemgr(counting, "create", "gina", "first", "--full-copy")
    homemgr(counting, "restore", "gina", "first")
    counting.activate("gina")
    take_up_to_the_limit(counting, "gina", SIZE)


def test_files_that_a_user_takes_out_are_counted_again_by_the_next_resize(
    counting: Service,
) -> None:
    counting.create("hugo", diskSize=SIZE)
    counting.activate("hugo")
    assert take(counting, "hugo", 3 * MIB) == 0
    ballast = counting.path_of("hugo") / "ballast"

    def take_out() -> None:
        with Fd.open(str(ballast), os.O_RDONLY) as fd:
            set_project(fd.fileno(), Project(0, is_inherited=False))

    # Linux lets the owner of a file do that.
    assert as_user(ballast.stat().st_uid, take_out) == 0
    assert figures(counting, "hugo")["diskUsage"] < MIB
    counting.call("ResizeHome", "sts", "hugo", SIZE, secret(PASSWORD))
    assert figures(counting, "hugo")["diskUsage"] >= 3 * MIB
