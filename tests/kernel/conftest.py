"""Kernel tests: a private mount namespace, real file systems on loop devices, nothing left over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.storage import paths
from tests import stretching, volumes
from tests.kernel import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Where the file systems of one run are mounted.
GROUND = Path(f"/run/homemgr-test-{os.getpid()}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here needs root."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="package", autouse=True)
def private_mounts() -> Iterator[None]:
    """A mount namespace of our own, left again when the last kernel test is done."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("kernel tests need root")
        pytest.skip("kernel tests need root")
    with volumes.private_mount_namespace(), forks.nursery(), stretching.short():
        yield


@pytest.fixture(scope="package")
def ground(private_mounts: None) -> Iterator[Path]:
    """A directory whose ancestors only root can change, on a file system of its own."""
    path = GROUND
    path.mkdir(mode=0o755)
    volumes.mount_new("tmpfs", "tmpfs", path)
    path.chmod(0o755)
    yield path
    mounts.umount2(str(path), mounts.MNT_DETACH)
    path.rmdir()


@pytest.fixture(scope="package")
def file_system(
    ground: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Path]]:
    """The root of a file system of a kind, made when first asked for and kept for all tests."""
    images = tmp_path_factory.mktemp("images")
    with ExitStack() as stack:

        def take_away(image: Path, target: Path) -> None:
            mounts.umount2(str(target), 0)
            target.rmdir()
            image.unlink()

        @cache
        def give(name: str, kind: str, size: int | None = None) -> Path:
            image, target = images / name, ground / name
            volumes.mount_image(image, kind, target, size)
            stack.callback(take_away, image, target)
            return target

        yield give


@pytest.fixture(params=sorted(volumes.KINDS))
def volume(request: pytest.FixtureRequest, file_system: Callable[..., Path]) -> Path:
    """The root of a file system of each kind."""
    return file_system(request.param, request.param)


@pytest.fixture(scope="package")
def one_volume(file_system: Callable[..., Path]) -> Path:
    """An ext4, for what does not depend on the file system."""
    return file_system("one", "ext4")


@pytest.fixture(scope="package")
def btrfs_volume(file_system: Callable[..., Path]) -> Path:
    """A btrfs, for what only that has."""
    return file_system("btrfs-only", "btrfs", 1 << 30)


@pytest.fixture
def btrfs_area(btrfs_volume: Path) -> Iterator[Path]:
    """A safe directory for one test, on btrfs."""
    yield from _fresh(btrfs_volume)


@pytest.fixture
def area(one_volume: Path) -> Iterator[Path]:
    """A safe directory for one test, on ext4."""
    yield from _fresh(one_volume)


@pytest.fixture
def every_area(volume: Path) -> Iterator[Path]:
    """A safe directory for one test, on every kind of file system."""
    yield from _fresh(volume)


def _fresh(parent: Path) -> Iterator[Path]:
    path = parent / "area"
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def base(area: Path) -> Iterator[Fd]:
    """A base directory for new homes, on ext4."""
    with paths.ensure_base(str(area / "base")) as fd:
        yield fd


class Traces(NamedTuple):
    """What a test could leave behind."""

    mounts: list[str]
    fds: dict[str, str]
    children: str
    loops: list[str]


def _traces(images: str) -> Traces:
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as file:
        mounted = [line.split(" ", 5)[4] for line in file]
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return Traces(mounted, fds, children, _loops(images))


def _loops(images: str) -> list[str]:
    # The machine's loop devices are everybody's; ours have images of this test run.
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = path.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.startswith((f"{images}/", f"{GROUND}/")) and "(deleted)" not in text:
            found.append(text)
    return sorted(found)


@pytest.fixture(autouse=True)
def nothing_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No mount, descriptor, child or loop device more than before."""
    images = str(tmp_path_factory.getbasetemp())
    for name in ("volume", "one_volume", "btrfs_volume", "ground"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = _traces(images)
    yield
    deadline = time.monotonic() + 2
    while (after := _traces(images)) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert after == before


@pytest.fixture
def other_process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a Python program in another process; it has begun its work once it wrote a line."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        code: str, *arguments: str, cwd: str | None = None, uid: int | None = None
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=cwd,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            stdout=subprocess.PIPE,
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
