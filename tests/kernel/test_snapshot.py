"""Snapshots of homes on btrfs: of one moment, out of reach, and gone with who took them."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel import btrfs
from homemgr.storage import directory, staging
from homemgr.storage.snapshot import Snapshots

from .. import homes
from .travels import opened

NAME = "alice.homedir"


def subvolume(path: Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(path)], check=True)
    path.chmod(0o700)


@pytest.fixture
def home(btrfs_area: Path) -> Path:
    path = btrfs_area / NAME
    subvolume(path)
    (path / "note").write_text("before")
    homes.give_away(path)
    return path


def snapshots(home: Path, closing: ExitStack) -> Snapshots:
    parent, top = (closing.enter_context(opened(path)) for path in (home.parent, home))
    return closing.enter_context(Snapshots(parent, home.name, top))


def read(top: Fd, name: str) -> str:
    with Fd.open(name, os.O_RDONLY, dir_fd=top.fileno()) as file:
        return os.read(file.fileno(), 100).decode()


def test_a_snapshot_is_of_one_moment_and_then_gone(home: Path) -> None:
    with ExitStack() as closing:
        taken = snapshots(home, closing)
        with taken.taken() as first:
            (home / "note").write_text("after")
            with taken.taken() as second:
                assert (read(first.fd, "note"), read(second.fd, "note")) == ("before", "after")
            with pytest.raises(OSError, match="Read-only"):
                os.unlink("note", dir_fd=first.fd.fileno())
            (place,) = home.parent.glob(".#*")
            found = place.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)
            assert len(os.listdir(place)) == 1
    assert os.listdir(home.parent) == [NAME]


def test_a_snapshot_differs_in_nothing(home: Path) -> None:
    homes.make_odd_home(home)
    os.sync()
    with ExitStack() as closing, snapshots(home, closing).taken() as snapshot:
        place = Path(os.readlink(f"/proc/self/fd/{snapshot.fd.fileno()}"))
        assert homes.compare(home, place, atimes=True) == []
        for path in (Path(), Path("note"), Path("_links/m-first")):
            one, other = (home / path).stat(), (place / path).stat()
            assert (one.st_ino, one.st_ctime_ns) == (other.st_ino, other.st_ctime_ns)


@pytest.mark.parametrize("what", ["directory", "with others in it"])
def test_where_no_snapshot_can_be_the_home_itself_is_read(btrfs_area: Path, what: str) -> None:
    home = btrfs_area / NAME
    if what == "directory":
        home.mkdir()
    else:
        subvolume(home)
        (home / "deep").mkdir()
        subvolume(home / "deep/other")
    with ExitStack() as closing:
        taken = snapshots(home, closing)
        for _ in range(2):
            with taken.taken() as seen:
                assert os.path.samestat(os.fstat(seen.fd.fileno()), home.stat())
    assert os.listdir(btrfs_area) == [NAME]


def test_a_disk_without_room_costs_the_snapshot_only(home: Path) -> None:
    filler = home.parent / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    with suppress(OSError):
        for number in range(1_000_000):
            (home / f"small-{number}").write_bytes(b"x" * 2000)
    with ExitStack() as closing, snapshots(home, closing).taken() as seen:
        assert read(seen.fd, "note") == "before"


def test_the_base_that_was_left_is_had_again(home: Path) -> None:
    with ExitStack() as closing:
        taken = snapshots(home, closing)
        with taken.taken() as moment:
            taken.keep(moment)
        token = taken.leave()
    (home / "note").write_text("after")
    assert len(os.listdir(home.parent)) == 2
    with ExitStack() as closing:
        again = snapshots(home, closing)
        again.resume(token)
        assert again.base is not None
        assert read(again.base.fd, "note") == "before"
        assert again.leave() == token
    with ExitStack() as closing:
        again = snapshots(home, closing)
        again.resume(token)
        with again.taken() as moment:
            again.keep(moment)
        assert len(os.listdir(home.parent)) == 2
    assert os.listdir(home.parent) == [NAME]


def _through_a_mapping(home: Path) -> None:
    with (home / "note").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:3] = b"new"


CHANGES: list[Callable[[Path], object]] = [
    lambda home: (home / "note").write_text("another"),
    _through_a_mapping,
    lambda home: (home / "note").chmod(0o640),
    lambda home: os.setxattr(home / "note", "user.a", b"1"),
    lambda home: os.utime(home / "note", ns=(1, 2)),
    lambda home: (home / "note").rename(home / "renamed"),
    lambda home: os.link(home / "renamed", home / "note"),
    lambda home: (home / "note").unlink(),
    lambda home: (home / "directory").mkdir(),
    lambda home: os.mkfifo(home / "directory/below"),
]


def test_of_a_home_it_is_known_whether_it_is_as_its_base(home: Path) -> None:
    with ExitStack() as closing:
        taken = snapshots(home, closing)
        assert not taken.is_as_base()
        for change in CHANGES:
            with taken.taken() as moment:
                taken.keep(moment)
            os.sync()
            assert taken.is_as_base()
            with taken.taken():
                assert taken.is_as_base()
            change(home)
            os.sync()
            assert not taken.is_as_base()
        with taken.taken() as moment:
            taken.keep(moment)
        token = taken.leave()
    # An older state in the place of the home: nothing in that was changed lately.
    command = ["btrfs", "-q", "subvolume", "snapshot", str(home), str(home.parent / "older")]
    subprocess.run(command, check=True)
    home.rename(home.parent / "replaced")
    (home.parent / "older").rename(home)
    with ExitStack() as closing:
        again = snapshots(home, closing)
        again.resume(token)
        assert again.base is not None
        assert not again.is_as_base()
        with again.taken() as moment:
            again.keep(moment)


@pytest.mark.parametrize("token", ["", "another"])
def test_a_base_that_nobody_knows_goes(home: Path, token: str) -> None:
    left_base(home)
    with ExitStack() as closing:
        again = snapshots(home, closing)
        again.resume(token)
        assert again.base is None
    assert os.listdir(home.parent) == [NAME]


def left_base(home: Path) -> Path:
    with ExitStack() as closing:
        taken = snapshots(home, closing)
        with taken.taken() as moment:
            taken.keep(moment)
        taken.leave()
    (base,) = home.parent.glob(".#homemgr-base-*")
    return base


def test_a_base_stays_with_its_home_for_a_while(home: Path) -> None:
    base = left_base(home)
    sweep(home.parent)
    assert base.exists()
    os.utime(base, (1, 1))
    sweep(home.parent)
    assert not base.exists()
    base = left_base(home)
    home.rename(home.parent / "elsewhere")
    sweep(home.parent)
    assert not base.exists()


def sweep(directory_: Path) -> None:
    # Btrfs lists nothing that is younger than the descriptor.
    with opened(directory_) as parent:
        directory.sweep(parent)


def test_a_base_is_deleted_with_its_home(home: Path) -> None:
    left_base(home)
    with opened(home.parent) as parent:
        directory.remove(parent, NAME)
    assert os.listdir(home.parent) == []


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def holder(home: Path, other_process: Start) -> subprocess.Popen[bytes]:
    """A process that has taken a snapshot and keeps it."""
    code = (
        "import os, sys, time\n"
        "from homemgr.files import DIRECTORY_FLAGS, Fd\n"
        "from homemgr.storage.snapshot import Snapshots\n"
        "parent, home = (Fd.open(path, DIRECTORY_FLAGS) for path in sys.argv[1:])\n"
        "with Snapshots(parent, os.path.basename(sys.argv[2]), home) as some, some.taken():\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    return other_process(code, str(home.parent), str(home), cwd=os.getcwd())


def test_what_a_killed_process_left_is_swept(home: Path, holder: subprocess.Popen[bytes]) -> None:
    with opened(home.parent) as parent:
        assert directory.sweep(parent).snapshots == []
        assert len(os.listdir(home.parent)) == 2
        holder.kill()
        holder.wait()
        assert directory.sweep(parent).snapshots == [NAME]
    assert os.listdir(home.parent) == [NAME]


def test_what_a_killed_process_left_goes_with_the_next_snapshot(
    home: Path, holder: subprocess.Popen[bytes]
) -> None:
    holder.kill()
    holder.wait()
    with ExitStack() as closing:
        snapshots(home, closing)
        assert os.listdir(home.parent) == [NAME]


def test_every_snapshot_is_another_tree(home: Path) -> None:
    with opened(home.parent) as parent, opened(home) as top:
        for name in ("one", "two"):
            btrfs.create_snapshot(top.fileno(), parent.fileno(), name, is_writable=True)
        names = (NAME, "one", "two")
        found = [staging.tree_at(parent, name) for name in names]
        assert found[0] == staging.tree_id(top)
        # Their top directories have one number and one time of birth.
        assert len(set(found)) == len(names)
        (home.parent / "one").rename(home.parent / "three")
        assert staging.tree_at(parent, "three") == found[1]
        for name in ("two", "three"):
            btrfs.destroy_subvolume(parent.fileno(), name)
