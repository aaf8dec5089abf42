"""Walking through a tree whose owner fights back."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import pytest

from homemgr.errors import HomeBusy, HostileHome
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import reader
from homemgr.storage.tree import delete_tree
from tests.kernel.test_tree import make_deep
from tests.kernel.travels import opened


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def deep(ground: Path) -> Iterator[Path]:
    """20,000 directories, one in the other; in memory, so that they never outlive the tests."""
    make_deep(ground, 20_000)
    yield ground / "tree"
    with Fd.open(str(ground), DIRECTORY_FLAGS) as parent:
        delete_tree(parent, "tree")


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.timeout(120)
def test_depth_costs_neither_descriptors_nor_memory(deep: Path) -> None:
    steps = 0
    tracemalloc.start()
    try:
        with opened(deep) as top:
            for _step in reader.walk(top):
                steps += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert steps == 2 * 20_000
    # The paths of all directories on the way would be 400 MB.
    assert peak < 40 << 20


@pytest.mark.timeout(120)
def test_names_of_one_directory_take_little_memory(ground: Path) -> None:
    many = ground / "many"
    many.mkdir()
    for number in range(30_000):
        os.mknod(many / f"{number:040}")
    tracemalloc.start()
    try:
        with opened(many) as top:
            assert sum(step.what == reader.ENTRY for step in reader.walk(top)) == 30_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    shutil.rmtree(many)
    # A million take a tenth of a gigabyte.
    assert peak < 4 << 20


def test_path_without_end_is_refused(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_PATH", 1000)
    with opened(deep) as top, pytest.raises(HostileHome, match="more than 1000 bytes"):
        list(reader.walk(top))


def read_all(top: Fd) -> None:
    for step in reader.walk(top):
        if step.what == reader.ENTRY:
            reader.open_content(step).close()


@pytest.mark.parametrize("what", ["directory", "file"])
def test_mount_inside_is_named_and_neither_entered_nor_lost(area: Path, what: str) -> None:
    victim, inside = area / "victim", area / "home" / "inside"
    inside.parent.mkdir()
    for path in (victim, inside):
        path.mkdir() if what == "directory" else path.touch()
    subprocess.run(["mount", "--bind", victim, inside], check=True)
    try:
        with opened(area / "home") as top, pytest.raises(HomeBusy, match="mounted at 'inside'"):
            read_all(top)
    finally:
        subprocess.run(["umount", inside], check=True)


def swap_for_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def swap_for_device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 255))


def swap_for_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("swap", [swap_for_socket, swap_for_device, swap_for_directory])
def test_file_swapped_before_it_is_read_counts_as_gone(
    area: Path, swap: Callable[[Path], None]
) -> None:
    (area / "file").write_text("honest")
    with opened(area) as top:
        for step in reader.walk(top):
            if step.what == reader.ENTRY:
                swap(area / "file")
                with pytest.raises(reader.FileVanished):
                    reader.open_content(step)


def test_directory_moved_away_does_not_lead_outside(area: Path) -> None:
    """From below its descriptors are closed: the way back up is through the directory moved."""
    make_deep(area, 100)
    outside = area / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    seen = set()

    def walk(top: Fd) -> None:
        for step in reader.walk(top):
            seen.add(step.name)
            if step.what == reader.ENTER and step.path.count(b"/") == 90:
                (area / "tree" / "d" / "d").rename(outside / "d")

    with opened(area / "tree") as top, pytest.raises(HostileHome, match="moved away"):
        walk(top)
    assert seen == {b"", b"d"}


SWAP = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    os.rename("sub", "aside")
    os.symlink("../outside", "sub")
    os.unlink("sub")
    os.rename("aside", "sub")
"""


def test_directory_that_is_a_link_at_times_is_never_followed(
    area: Path, other_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (area / "outside").mkdir()
    (area / "outside" / "precious").touch()
    (area / "home" / "sub").mkdir(parents=True)
    (area / "home" / "sub" / "honest").touch()
    other_process(SWAP, str(area / "home"))
    seen: set[bytes] = set()
    with opened(area / "home") as top:
        for _round in range(3000):
            seen.update(step.name for step in reader.walk(top))
    assert b"honest" in seen
    assert b"precious" not in seen


SHRINK = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print(flush=True)
while True:
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * 4096, 1 << 19)
    os.ftruncate(fd, 0)
"""


def test_file_that_shrinks_meanwhile_is_read_as_far_as_it_goes(
    area: Path, other_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    path = area / "file"
    path.touch()
    other_process(SHRINK, str(path))
    with path.open("rb") as file:
        for _round in range(20_000):
            for offset, length in reader.data_runs(file.fileno(), 1 << 20):
                assert 0 < offset + length <= 1 << 20


def test_more_attributes_than_the_kernel_lists_are_refused_by_name(every_area: Path) -> None:
    path = every_area / "file"
    path.touch()
    # ext4 has no room for so many.
    with suppress(OSError):
        for number in range(300):
            os.setxattr(path, f"user.{number:0250}", b"")
    expected: AbstractContextManager[object]
    try:
        os.listxattr(path)
    except OSError:
        expected = pytest.raises(HostileHome, match="'file' has more extended attributes")
    else:
        expected = nullcontext()
    with opened(every_area) as top, expected:
        read_entries(top)


def read_entries(top: Fd) -> None:
    for step in reader.walk(top):
        reader.read_entry(step)
