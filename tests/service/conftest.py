"""The real service on a private bus, its homes on a loop image in a private mount namespace."""

from __future__ import annotations

import itertools
import os
import shutil
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from tests import volumes
from tests.service.bus import Bus
from tests.service.cutting import mounts_below
from tests.service.moving import Line, OtherMachine
from tests.service.site import Service, Site, children, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# They say what was found where all else is chance.
for module in ("interrupted", "interrupted_conversions", "interrupted_snapshots"):
    pytest.register_assert_rewrite(f"tests.service.{module}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here needs root."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="package", autouse=True)
def private_mounts() -> Iterator[None]:
    """A mount namespace of our own, left again when the last test of the service is done."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("tests of the service need root")
        pytest.skip("tests of the service need root")
    with volumes.private_mount_namespace():
        yield


@pytest.fixture(scope="package")
def ground(private_mounts: None) -> Iterator[Path]:
    """A directory whose ancestors only root can change, on a file system of its own."""
    path = Path(f"/run/homemgr-service-{os.getpid()}")
    path.mkdir(mode=0o755)
    volumes.mount_new("tmpfs", "tmpfs", path)
    path.chmod(0o755)
    yield path
    mounts.umount2(str(path), mounts.MNT_DETACH)
    path.rmdir()


@pytest.fixture(scope="package")
def disk(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 for homes, encrypted ones as well."""
    image = tmp_path_factory.mktemp("disk") / "image"
    target = ground / "disk"
    make = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "encrypt"]
    volumes.mount_image(image, "ext4", target, 1024 * volumes.MIB, make)
    yield target
    mounts.umount2(str(target), 0)
    target.rmdir()
    image.unlink()


@pytest.fixture(scope="package")
def numbers() -> Iterator[int]:
    """Tells installations apart."""
    return itertools.count()


@pytest.fixture(scope="module")
def new_site(ground: Path, disk: Path, numbers: Iterator[int]) -> Iterator[Callable[..., Site]]:
    """Makes installations that share nothing but the disk."""
    with sites(ground, disk, numbers) as make:
        yield make


@contextmanager
def sites(ground: Path, disk: Path, numbers: Iterator[int]) -> Iterator[Callable[..., Site]]:
    """Their buses end with this: a user can have no more than 128 that watch their files.

    Their homes go too: some are images of a hundred megabytes.
    """
    with ExitStack() as stack:

        def make(**settings: str) -> Site:
            number = next(numbers)
            home_root, state = disk / f"home{number}", ground / f"state{number}"
            home_root.mkdir(0o755)
            stack.callback(shutil.rmtree, home_root, ignore_errors=True)
            bus = Bus(state)
            stack.callback(bus.close)
            return Site(home_root, state, bus.address, **settings)

        yield make


@pytest.fixture(scope="module")
def service(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A daemon that the tests of one file share; each test uses names of its own."""
    running = Service(new_site())
    yield running
    _end(running)


@pytest.fixture
def own_service(ground: Path, disk: Path, numbers: Iterator[int]) -> Iterator[Service]:
    """A daemon for one test, which may kill it."""
    with sites(ground, disk, numbers) as make:
        running = Service(make())
        yield running
        _end(running)


@pytest.fixture(scope="module")
def here(new_site: Callable[..., Site]) -> Iterator[Service]:
    """The machine where homes begin to move."""
    running = Service(new_site())
    yield running
    _end(running)


@pytest.fixture(scope="module")
def there(
    new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The other machine."""
    identity = tmp_path_factory.mktemp("there") / "machine-id"
    identity.write_text(f"{uuid.uuid4().hex}\n")
    running = OtherMachine(new_site(), identity)
    yield running
    _end(running)


@pytest.fixture
def line(here: Service, there: Service, tmp_path: Path) -> Line:
    """The way between both."""
    return Line(here, there, tmp_path)


def _end(service: Service) -> None:
    """Take the daemon down; it must leave by itself, and leave nothing."""
    if service.is_running:
        service.call("DeactivateAllHomes")
    service.close()
    assert mounts_below(service.site.home_root) == []


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process of ours, no worker and no descriptor of the daemon more than before."""
    if "service" not in request.fixturenames:
        yield
        return
    running: Service = request.getfixturevalue("service")
    before, own = descriptors(running.pid), descriptors(os.getpid())
    ours = children(os.getpid())
    yield
    wait_until(lambda: running.workers() == [], "all workers to end")
    kept = sum(state == "active" for state in running.states().values())
    # Nothing belongs to an active home but the reference that keeps it.
    wait_until(lambda: descriptors(running.pid) <= before + kept, "descriptors to be closed")
    assert descriptors(os.getpid()) <= own
    assert children(os.getpid()) == ours
