"""A tree is read and written again: exact, by descriptor, on every file system we support."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from homemgr.errors import HomeAbsent, PathExists
from homemgr.files import Fd
from homemgr.kernel.synchronization import syncfs
from homemgr.storage import reader, rooms, staging
from homemgr.storage.ledger import Ledger, proof
from homemgr.storage.verify import verify
from homemgr.storage.writer import TreeWriter
from homemgr.transfer.entry import Entry, Kind
from tests import homes
from tests.kernel.travels import NOBODY, copy, make_top, opened

NOTHING: frozenset[bytes] = frozenset()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return make_top(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return make_top(tmp_path / "there")


def test_an_odd_home_is_copied_exactly(here: Path, there: Path) -> None:
    homes.make_odd_home(here)
    copy(here, there)
    assert homes.compare(here, there) == []


def test_a_second_copy_replaces_every_kind_by_every_other(here: Path, there: Path) -> None:
    for top, order in ((here, (0, 1, 2, 3)), (there, (3, 2, 1, 0))):
        for kind, name in zip(order, (b"a", b"b", b"c", b"d"), strict=True):
            make_kind(top, name, kind)
        homes.give_away(top)
    with opened(there) as target, TreeWriter(target) as writer:
        writer.enter(b"", None)
        for name in (b"a", b"b", b"c", b"d"):
            writer.delete(name)
            writer.delete(name)  # once more does no harm
        writer.leave()
    copy(here, there)
    assert homes.compare(here, there) == []


def make_kind(top: Path, name: bytes, kind: int) -> None:
    path = top / os.fsdecode(name)
    if kind == 0:
        path.write_text("file")
    elif kind == 1:
        path.mkdir()
        (path / "within").write_text("more")
    elif kind == 2:
        path.symlink_to("elsewhere")
    else:
        os.mkfifo(path)


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(there: Path) -> None:
    (there / "file").write_text("old")
    homes.give_away(there)
    with opened(there) as target, TreeWriter(target) as writer:
        writer.enter(b"", None)
        entry = Entry(Kind.FILE, 0o600, NOBODY, NOBODY, 1, 2, 3, b"", ())
        with writer.begin(b"file", entry) as file:
            file.data(0, b"new")
        assert (there / "file").read_text() == "old"
        assert os.listdir(there) == ["file"]
        mark = writer.write_small(b"file", entry, b"new")
        writer.leave()
    assert (there / "file").read_text() == "new"
    assert mark == proof((there / "file").stat())


def test_a_copy_with_changes_shares_nothing_with_what_it_came_from(there: Path) -> None:
    (there / "sub").mkdir()
    (there / "sub/source").write_bytes(b"s" * 300_000)
    homes.give_away(there)
    with opened(there) as target, TreeWriter(target) as writer:
        writer.enter(b"", None)
        entry = Entry(Kind.FILE, 0o600, NOBODY, NOBODY, 1, 2, 400_000, b"", ())
        with writer.begin(b"copy", entry, copy_of=b"sub/source") as file:
            file.data(10, b"changed")
            file.hole(100_000, 100_000)
            file.finish()
        same = Entry(Kind.FILE, 0o640, NOBODY, NOBODY, 3, 4, 400_000, b"", ())
        assert writer.same(b"copy", same) == proof((there / "copy").stat())
        writer.leave()
    assert (there / "sub/source").read_bytes() == b"s" * 300_000
    content = (there / "copy").read_bytes()
    assert content[:20] == b"s" * 10 + b"changed" + b"s" * 3
    assert content[100_000:200_000] == bytes(100_000)
    assert len(content) == 400_000


def test_a_walk_leaves_out_what_it_is_told(here: Path) -> None:
    (here / "keep").mkdir()
    (here / "keep/.identity").touch()
    (here / ".identity").touch()
    with opened(here) as top:
        paths = [step.path for step in reader.walk(top, leave_out=frozenset({b".identity"}))]
    assert paths == [b"", b"keep", b"keep/.identity", b"keep", b""]


def test_a_walk_goes_on_when_things_vanish_or_change_their_kind(here: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (here / name).mkdir()
        (here / name / "file").touch()
    seen = []
    with opened(here) as top:
        for step in reader.walk(top):
            seen.append(step.path)
            if step.path == b"a" and step.what == reader.ENTER:
                (here / "b/file").unlink()
                (here / "b").rmdir()
                (here / "c").rename(here / "c-moved")
                (here / "c").symlink_to("/etc")
    assert b"b" not in seen
    assert b"d/file" in seen
    assert not [path for path in seen if path.startswith(b"c/")]


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.touch, lambda path: path.symlink_to("/etc/passwd")]
)
def test_content_that_was_swapped_for_something_else_is_not_read(
    here: Path, make: Callable[[Path], None]
) -> None:
    (here / "file").write_text("honest")
    with opened(here) as top:
        for step in reader.walk(top):
            if step.what == reader.ENTRY:
                make(here / "other")
                (here / "other").rename(here / "file")
                with pytest.raises(reader.FileVanished):
                    reader.open_content(step)


@pytest.mark.timeout(300)
def test_depth_costs_no_descriptors(here: Path, there: Path) -> None:
    below = os.open(here, os.O_RDONLY)
    # Not more: whoever removes it afterwards may be less careful.
    for _ in range(400):
        os.mkdir("d", dir_fd=below)
        deeper = os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    most = 0
    with opened(here) as source, opened(there) as target, TreeWriter(target) as writer:
        for step in reader.walk(source):
            if step.what == reader.LEAVE:
                writer.leave()
            else:
                writer.enter(step.name, reader.read_entry(step))
            if len(step.path) % 100 == 1:
                most = max(most, len(os.listdir("/proc/self/fd")))
    assert 64 < most < 250


def test_what_was_half_written_is_found(here: Path, there: Path, tmp_path: Path) -> None:
    homes.make_odd_home(here)
    with Ledger(str(tmp_path / "ledger")) as ledger:
        copy(here, there, ledger)
        with opened(there) as top:
            assert verify(top, ledger, NOTHING) == 0
            before = ledger.digest()
            (there / "_contents/4096").write_bytes(b"torn")
            (there / "strange").mkdir()
            (there / "strange/file").touch()
            (there / "_large/0001").unlink()
            assert verify(top, ledger, NOTHING) == 2
            assert ledger.get(b"_contents/4096") is None
            assert ledger.get(b"_large/0001") is None
            assert not (there / "strange").exists()
            assert ledger.digest() != before
            # What was forgotten is strange from now on.
            assert verify(top, ledger, NOTHING) == 0
            assert not (there / "_contents/4096").exists()


def test_no_step_is_taken_with_another_tree(every_area: Path) -> None:
    """Nor with one that was made anew under the name, and with the inode, of the first."""

    def move(_: Fd, old: str, new: str, tree: str) -> None:
        rooms.move(str(every_area / old), str(every_area / new), tree)

    steps = (move, staging.leave, staging.come_back)
    with opened(every_area) as base:
        (every_area / "one").mkdir()
        tree = staging.tree_at(base, "one")
        (every_area / "one").rename(every_area / "other")
        assert staging.tree_at(base, "other") == tree
        (every_area / "other").rmdir()
        (every_area / "one").mkdir()
        for step in steps:
            for old, new in (("one", "other"), ("other", "one")):
                with pytest.raises(PathExists, match="is another one"):
                    step(base, old, new, tree)
        (every_area / "one").rmdir()
        (every_area / "one").symlink_to(every_area)
        assert staging.tree_at(base, "one") == ""
        with pytest.raises(PathExists):
            move(base, "one", "other", tree)
        assert os.listdir(every_area) == ["one"]


@pytest.mark.parametrize("kind", [0, 2, 3])
def test_what_is_no_directory_is_in_the_way_of_what_arrives(there: Path, kind: int) -> None:
    make_kind(there, b"stage", kind)
    with opened(there) as base, pytest.raises(PathExists, match=r"/stage is no directory.*move it"):
        staging.open_stage(base, "stage")
    assert os.listdir(there) == ["stage"]


def test_trees_become_homes_and_back_and_every_step_may_be_repeated(every_area: Path) -> None:
    def move(old: str, new: str, tree: str) -> None:
        rooms.move(str(every_area / old), str(every_area / new), tree)

    with opened(every_area) as base:
        with staging.open_stage(base, ".#homemgr-in-alice.1") as stage:
            found = os.fstat(stage.fileno())
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o700)
            assert staging.free_bytes(stage) > 0
            syncfs(stage.fileno())
            tree = staging.tree_id(stage)
        for _ in range(2):
            move(".#homemgr-in-alice.1", "alice.homedir", tree)
        assert staging.tree_at(base, "alice.homedir") == tree
        for _ in range(2):
            staging.leave(base, "alice.homedir", ".#homemgr-left-alice.1", tree)
        for _ in range(2):
            staging.come_back(base, ".#homemgr-left-alice.1", "alice.homedir", tree)
        (every_area / ".#homemgr-in-alice.2").mkdir()
        other = staging.tree_at(base, ".#homemgr-in-alice.2")
        with pytest.raises(PathExists):
            move(".#homemgr-in-alice.2", "alice.homedir", other)
        staging.abandon(base, ".#homemgr-in-alice.2")
        for _ in range(2):
            move("alice.homedir", ".#homemgr-in-alice.1", tree)
        assert staging.is_there(base, ".#homemgr-in-alice.1")
        for _ in range(2):
            staging.abandon(base, ".#homemgr-in-alice.1")
        with pytest.raises(HomeAbsent):
            move(".#homemgr-in-alice.1", "alice.homedir", tree)
    assert os.listdir(every_area) == []
