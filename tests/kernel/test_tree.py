"""Deleting trees that are deep, wide, guarded, mounted over, or fight back."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import HomeBusy, HostileHome
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def parent(every_area: Path) -> Iterator[Fd]:
    """Where the tree to be deleted is."""
    with Fd.open(str(every_area), DIRECTORY_FLAGS) as fd:
        yield fd


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Room for some dozen open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_tree_goes_and_what_its_links_point_to_stays(every_area: Path, parent: Fd) -> None:
    (every_area / "victim").mkdir()
    (every_area / "victim" / "file").touch()
    tree = every_area / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "to-directory").symlink_to("../../victim")
    (tree / "a" / "to-file").symlink_to(every_area / "victim" / "file")
    os.link(every_area / "victim" / "file", tree / "hard")
    os.mkfifo(tree / "fifo")
    (tree / "a" / "b").chmod(0)
    delete_tree(parent, "tree")
    assert os.listdir(every_area) == ["victim"]
    assert os.listdir(every_area / "victim") == ["file"]


def test_missing_tree_is_deleted_already(parent: Fd) -> None:
    delete_tree(parent, "tree")


@pytest.mark.usefixtures("few_descriptors")
def test_depth_costs_neither_stack_nor_descriptors(area: Path) -> None:
    make_deep(area, 10_000)
    with Fd.open(str(area), DIRECTORY_FLAGS) as parent:
        delete_tree(parent, "tree")
    assert os.listdir(area) == []


def make_deep(area: Path, depth: int) -> None:
    here = os.open(area, os.O_PATH)
    name = "tree"
    for _level in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_PATH, dir_fd=here)
        os.close(here)
        here, name = below, "d"
    os.close(here)


def test_directory_of_more_entries_than_are_listed_at_once_goes(area: Path) -> None:
    top = area / "many"
    (top / "below").mkdir(parents=True)
    for number in range(8_000):
        os.mknod(top / f"file{number}")
        if number < 5_500:
            (top / "below" / f"directory{number}").mkdir()
    with Fd.open(str(area), DIRECTORY_FLAGS) as parent:
        delete_tree(parent, "many")
    assert not top.exists()


def test_mount_inside_stops_the_deletion(area: Path) -> None:
    inside = area / "tree" / "sub" / "mnt"
    inside.mkdir(parents=True)
    (area / "victim").mkdir()
    (area / "victim" / "file").touch()
    subprocess.run(["mount", "--bind", area / "victim", inside], check=True)
    try:
        with (
            Fd.open(str(area), DIRECTORY_FLAGS) as parent,
            pytest.raises(HomeBusy, match=f"mounted at {inside}"),
        ):
            delete_tree(parent, "tree")
    finally:
        subprocess.run(["umount", inside], check=True)
    assert (area / "victim" / "file").exists()


@pytest.mark.parametrize("mark", ["i", "a"])
def test_marked_file_is_named(every_area: Path, parent: Fd, mark: str) -> None:
    path = every_area / "tree" / "sub" / "precious"
    path.parent.mkdir(parents=True)
    path.touch()
    for marked in (path, path.parent):
        subprocess.run(["chattr", f"+{mark}", marked], check=True)
        try:
            with pytest.raises(HostileHome, match=f"{marked} is marked"):
                delete_tree(parent, "tree")
        finally:
            subprocess.run(["chattr", f"-{mark}", marked], check=True)


FILL = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    for number in range(50):
        try:
            os.mkdir(f"{os.getpid()}-{number}")
            open(f"{os.getpid()}-{number}/file", "w").close()
        except OSError:
            pass
"""


def test_files_appearing_meanwhile_do_not_stop_it_for_long(
    area: Path, other_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (area / "tree" / "sub").mkdir(parents=True)
    filler = other_process(FILL, str(area / "tree" / "sub"))
    with Fd.open(str(area), DIRECTORY_FLAGS) as parent:
        try:
            delete_tree(parent, "tree")
        except HomeBusy:
            # Outrun: an honest answer, and the next attempt finishes it.
            filler.kill()
            filler.wait()
            delete_tree(parent, "tree")
    assert os.listdir(area) == []


MOVE = """
import os, sys
here, away = sys.argv[1:]
print(flush=True)
while True:
    for source, target in ((here, away), (away, here)):
        try:
            os.rename(source, target)
        except OSError:
            pass
"""


def test_directory_moved_away_does_not_lead_outside(
    area: Path, other_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """A directory that jumps in and out of the tree never makes us delete its new siblings."""
    (area / "outside").mkdir()
    for number in range(20):
        (area / "outside" / f"precious{number}").touch()
    other = None
    for _round in range(30):
        with suppress(FileNotFoundError, FileExistsError):
            (area / "tree" / "jumper" / "a" / "b" / "c").mkdir(parents=True, exist_ok=True)
        if other is None:
            other = other_process(MOVE, str(area / "tree/jumper/a"), str(area / "outside/a"))
        with Fd.open(str(area), DIRECTORY_FLAGS) as parent:
            try:
                delete_tree(parent, "tree")
            except (HostileHome, HomeBusy):
                continue
    assert sum(name.startswith("precious") for name in os.listdir(area / "outside")) == 20


def btrfs(*arguments: str | Path) -> None:
    subprocess.run(["btrfs", "-q", *map(str, arguments)], check=True)


def is_btrfs(path: Path) -> bool:
    done = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, check=True)
    return done.stdout.strip() == b"btrfs"


def test_subvolumes_and_snapshots_go_with_the_tree(every_area: Path, parent: Fd) -> None:
    """What users make in their homes: snapshots of what holds subvolumes, some read-only."""
    if not is_btrfs(every_area):
        return
    tree = every_area / "tree"
    for path in (tree, tree / "work", tree / "work" / "deep"):
        btrfs("subvolume", "create", path)
        (path / "file").touch()
    (tree / "old").mkdir()
    btrfs("subvolume", "snapshot", "-r", tree / "work", tree / "old" / "frozen")
    btrfs("subvolume", "snapshot", "-r", tree / "work" / "deep", tree / "work" / "again")
    for path in (tree / "work" / "deep", tree / "work", tree):
        btrfs("property", "set", "-ts", path, "ro", "true")
    delete_tree(parent, "tree")
    assert os.listdir(every_area) == []
    listed = ["btrfs", "subvolume", "list", str(every_area)]
    assert subprocess.run(listed, capture_output=True, check=True).stdout == b""
