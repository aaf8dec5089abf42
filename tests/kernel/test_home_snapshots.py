"""Snapshots of homes by real workers: on subvolumes, by shared blocks, as copies, after kills."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from homemgr import errors, files
from homemgr.files import Fd
from homemgr.kernel import qgroup
from homemgr.kernel.project import Project, get_project, set_project
from homemgr.record import snapshots
from homemgr.storage import (
    mountpoint,
    snapshot_entry,
    snapshot_exchange,
    snapshot_pending,
    snapshot_shelf,
)
from homemgr.storage.tree import delete_tree
from tests.kernel.jobs import PASSWORD, KilledError, Worker
from tests.kernel.kills import Step

from .. import homes
from .travels import opened

NOBODY, ALICE, BACKUP = 65534, 60456, 34
KINDS = {"btrfs": "subvolume", "btrfs-plain": "shared", "xfs": "shared", "ext4": "copied"}
NEW = "another horse battery"

#: System calls after which the home or one of its snapshots is another one.
CALLS = (
    *("mkdirat", "renameat2", "renameat", "rename", "unlinkat", "rmdir", "unlink"),
    *("fsync", "syncfs", "fchown", "ioctl"),
)


@pytest.fixture(scope="module", autouse=True)
def disks(file_system: Callable[..., Path]) -> None:
    """The file systems, mounted before anybody counts mounts."""
    for kind in ("btrfs", "ext4", "xfs"):
        disk(kind, file_system)


def disk(kind: str, file_system: Callable[..., Path]) -> Path:
    return file_system(f"snapshots-{kind}", kind, 512 << 20)


@pytest.fixture(params=sorted(KINDS))
def alice(request: pytest.FixtureRequest, file_system: Callable[..., Path]) -> Iterator[Worker]:
    """A worker for alice, whose home lies on each kind of file system."""
    yield from worker_on(request.param, file_system)


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, file_system: Callable[..., Path]) -> Iterator[Worker]:
    """The same where a snapshot costs nothing."""
    yield from worker_on(request.param, file_system)


def worker_on(kind: str, file_system: Callable[..., Path]) -> Iterator[Worker]:
    area = disk(kind.partition("-")[0], file_system) / "area"
    area.mkdir(mode=0o755)
    storage = "subvolume" if kind == "btrfs" else "directory"
    worker = Worker(area, extra={"storage": storage})
    worker.run("create", storage=storage)
    home = stored(worker)
    (home / "note").write_text("before")
    (home / "gone").write_text("still there")
    homes.give_away(home)
    yield worker
    if mountpoint.is_active(str(area / "alice")):
        mountpoint.take_away(str(area / "alice"))
    with opened(area.parent) as parent:
        delete_tree(parent, "area")


def stored(worker: Worker) -> Path:
    return worker.area / ".homemgr" / "alice.homedir"


def shelf(worker: Worker) -> Path:
    return worker.area / ".homemgr" / snapshot_shelf.DIRECTORY / "alice"


def take(worker: Worker, name: str = "", **more: object) -> dict[str, object]:
    told = {"prefix": "", "reason": "", "by_uid": 0, "automatic": False, "full_copy": True}
    result = worker.run("snapshot", name=name, **{**told, **more})
    return cast("dict[str, object]", result.get("snapshot", result))


def restore(worker: Worker, name: str) -> str:
    note = worker.run("restore", name=name, by_uid=0)["snapshot"]
    return str(cast("dict[str, object]", note)["name"])


def listed(worker: Worker) -> list[str]:
    rows = cast("list[dict[str, object]]", worker.run("snapshot-list")["snapshots"])
    return [str(row["name"]) for row in rows]


def test_a_home_is_had_again_as_it_was(alice: Worker, request: pytest.FixtureRequest) -> None:
    home = stored(alice)
    homes.make_odd_home(home)
    note = take(alice, "one", reason="why not")
    assert note["how"] == KINDS[request.node.callspec.params["alice"]]
    found = (shelf(alice) / "one").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)
    copy = shelf(alice) / "one/home"
    assert homes.compare(home, copy) == []
    (home / "note").write_text("after")
    (home / "gone").unlink()
    other = restore(alice, "one")
    assert (home / "note").read_text() == "before"
    assert (home / "gone").read_text() == "still there"
    found_other = homes.compare(home, copy, leave_out=(b".identity",))
    # The record is put into the top directory.
    assert [text for text in found_other if not text.startswith("b'': mtime")] == []
    # What it was until then is not lost, and can be had again in the same way.
    assert listed(alice) == ["one", other]
    assert restore(alice, other) in listed(alice)
    assert (home / "note").read_text() == "after"
    assert not (home / "gone").exists()
    alice.run("activate")
    (alice.area / "alice" / "note").write_text("later")


def test_where_it_costs_a_copy_it_has_to_be_asked_for(file_system: Callable[..., Path]) -> None:
    for worker in worker_on("ext4", file_system):
        with pytest.raises(errors.NotSupported, match=r"full copy of \d+ bytes.*--full-copy"):
            take(worker, full_copy=False)
        assert "full copy" in str(take(worker, automatic=True)["skipped"])
        assert os.listdir(stored(worker).parent) == ["alice.homedir"]
        with (stored(worker) / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 300 << 20)
        with pytest.raises(errors.NoDiskSpace, match="are free"):
            take(worker)
        assert os.listdir(stored(worker).parent) == ["alice.homedir"]


def test_nobody_goes_round_the_limit_of_his_home_by_full_copies(
    file_system: Callable[..., Path],
) -> None:
    for worker in worker_on("ext4", file_system):
        take(worker, "unlimited", by_uid=worker.uid)
        # This file system enforces nothing; what counts is that somebody said so.
        worker.extra["diskSize"] = 64 << 20
        worker.record = worker.signed(PASSWORD, 2_000_000)
        with pytest.raises(errors.AccessDenied, match="administrator"):
            take(worker, "own", by_uid=worker.uid)
        assert listed(worker) == ["unlimited"]
        take(worker, "of-an-administrator")


def test_the_password_of_now_is_the_only_one(sharing: Worker) -> None:
    take(sharing, "old")
    changed = sharing.signed(NEW, 2_000_000)
    # Killed after it was written into the home, and before the host copy was.
    (stored(sharing) / ".identity").write_bytes(changed.embedded().pretty())
    restore(sharing, "old")
    with pytest.raises(errors.BadPassword):
        sharing.run("authenticate")
    sharing.password = NEW
    sharing.run("authenticate")
    sharing.record = changed
    (stored(sharing) / ".identity").unlink()
    restore(sharing, "old")
    sharing.run("authenticate")
    sharing.password = PASSWORD
    with pytest.raises(errors.BadPassword):
        sharing.run("authenticate")


def test_a_home_that_cannot_be_made_costs_nobody_his_snapshots(sharing: Worker) -> None:
    take(sharing, "one")
    storage = sharing.extra["storage"]
    with pytest.raises(errors.PathExists):
        sharing.run("create", storage=storage)
    assert listed(sharing) == ["one"]
    with opened(stored(sharing).parent) as parent:
        delete_tree(parent, stored(sharing).name)
    # Neither file system has that.
    with pytest.raises(errors.NotSupported):
        sharing.run("create", storage="fscrypt")
    assert listed(sharing) == ["one"]
    sharing.run("create", storage=storage)
    assert listed(sharing) == []


def test_a_home_whose_files_are_gone_is_had_again(sharing: Worker) -> None:
    take(sharing, "one")
    if sharing.extra["storage"] == "subvolume":
        subprocess.run(["btrfs", "-q", "subvolume", "delete", str(stored(sharing))], check=True)
    else:
        shutil.rmtree(stored(sharing))
    assert sharing.run("restore", name="one", by_uid=0) == {}
    assert (stored(sharing) / "note").read_text() == "before"
    assert listed(sharing) == ["one"]
    sharing.run("activate")


def test_subvolumes_in_a_home_are_had_again_too(file_system: Callable[..., Path]) -> None:
    for worker in worker_on("btrfs", file_system):
        home = stored(worker)
        take(worker, "one")
        subprocess.run(["btrfs", "-q", "subvolume", "create", home / "box"], check=True)
        (home / "box/file").write_text("in a box")
        homes.give_away(home)
        other = restore(worker, "one")
        assert not (home / "box").exists()
        restore(worker, other)
        assert (home / "box/file").read_text() == "in a box"


def test_a_restored_home_is_held_to_its_size(sharing: Worker) -> None:
    home = stored(sharing)
    take(sharing, "one")
    if sharing.extra["storage"] == "subvolume":
        with opened(home) as top:
            qgroup.enable(top.fileno())
            qgroup.set_limit(top.fileno(), 64 << 20)
        restore(sharing, "one")
        with opened(home) as top:
            found = qgroup.usage(top.fileno())
        assert found is not None
        assert found.limit == 64 << 20
        return
    number = (1 << 30) + 7
    for path in (home, home / "note"):
        with Fd.open(str(path), os.O_RDONLY) as file:
            set_project(file.fileno(), Project(number, is_inherited=path.is_dir()))
    (home / "later").write_text("later")
    other = restore(sharing, "one")
    old = shelf(sharing) / other / "home"
    assert {project_of(home / name) for name in ("", "note", "gone")} == {number}
    assert {project_of(old / name) for name in ("", "note", "gone", "later")} == {0}


def project_of(path: Path) -> int:
    with Fd.open(str(path), os.O_RDONLY) as file:
        return get_project(file.fileno()).number


def test_an_image_is_had_again_as_a_whole(file_system: Callable[..., Path]) -> None:
    for worker in worker_on("xfs", file_system):
        worker.extra = {"storage": "luks"}
        worker.record = worker.signed(PASSWORD, 1_000_000)
        image = worker.area / "alice.home"
        worker.record = worker.record.with_binding(
            "0" * 31 + "1", {"imagePath": str(image), "storage": "luks"}
        )
        image.write_bytes(b"encrypted" * 100_000)
        image.chmod(0o600)
        assert take(worker, "one", full_copy=False)["how"] == "image"
        image.write_bytes(b"other")
        note = worker.run("restore", name="one", by_uid=0)["snapshot"]
        other = str(cast("dict[str, object]", note)["name"])
        assert image.read_bytes() == b"encrypted" * 100_000
        found = worker.area / snapshot_shelf.DIRECTORY / "alice" / other / "home"
        assert found.read_bytes() == b"other"
        with pytest.raises(errors.NotSupported, match="image"):
            worker.run("snapshot-files", name="one", paths=["note"], force=False)
        # Nobody could log in: its key slots know the password of that time.
        changed = worker.signed(NEW, 2_000_000)
        worker.record = changed.with_local_sections_of(worker.record)
        with pytest.raises(errors.NotSupported, match=r"passwords of .* have changed"):
            worker.run("restore", name="one", by_uid=0)
        assert image.read_bytes() == b"encrypted" * 100_000
        # Nor if it is an image of another kind by now.
        plain = image.with_name("alice.homeimage")
        image.rename(plain)
        worker.record = worker.record.with_binding(
            "0" * 31 + "1", {"imagePath": str(plain), "storage": "directory"}
        )
        with pytest.raises(errors.NotSupported, match="stored otherwise now"):
            worker.run("restore", name="one", by_uid=0)
        assert plain.read_bytes() == b"encrypted" * 100_000


def test_what_is_readable_goes_whenever_it_was_taken(
    file_system: Callable[..., Path],
) -> None:
    for worker in worker_on("xfs", file_system):
        take(worker, "tree")
        image = stored(worker).with_name("alice.home")
        worker.extra = {"storage": "luks"}
        worker.record = worker.signed(PASSWORD, 1_000_000).with_binding(
            "0" * 31 + "1", {"imagePath": str(image), "storage": "luks"}
        )
        image.write_bytes(b"encrypted")
        image.chmod(0o600)
        take(worker, "image", full_copy=False)
        plain = image.with_name("alice.homeimage")
        worker.extra = {"storage": "image"}
        image.rename(plain)
        worker.record = worker.record.with_binding(
            "0" * 31 + "1", {"imagePath": str(plain), "storage": "directory"}
        )
        switched = int(str(take(worker, "plain", full_copy=False)["taken_usec"]))
        told: dict[str, object] = {"directory": str(image.parent), "user": "alice"}
        told |= {"since_usec": 0, "before_usec": 0}
        for _ in range(2):
            worker.run("snapshot-forget", **told, only_readable=True)
            assert listed(worker) == ["image"]
        told["before_usec"] = switched
        worker.run("snapshot-forget", **{**told, "since_usec": switched}, only_readable=False)
        assert listed(worker) == ["image"]
        worker.run("snapshot-forget", **told, only_readable=False)
        assert not shelf(worker).parent.exists()


def test_those_nobody_asked_for_go_by_themselves(sharing: Worker) -> None:
    take(sharing, "mine")
    for number in range(snapshots.KEPT + 2):
        take(sharing, f"auto-{number}", automatic=True)
    assert listed(sharing) == ["mine", *(f"auto-{n}" for n in range(2, snapshots.KEPT + 2))]
    with pytest.raises(errors.PathExists):
        take(sharing, "mine")
    with pytest.raises(errors.AccessDenied):
        sharing.run("snapshot-remove", name="auto-3", only_by=ALICE)
    sharing.run("snapshot-remove", name="mine", only_by=0)
    # As if weeks had gone by.
    path = shelf(sharing) / "auto-4/note.json"
    text = json.loads(path.read_text())
    path.write_text(json.dumps({**text, "taken_usec": 1}))
    places = ["//server/share", "/nowhere", str(stored(sharing).parent)]
    sharing.run("snapshot-prune", directories=places)
    assert "auto-4" not in listed(sharing)
    assert len(listed(sharing)) == snapshots.KEPT - 1
    sharing.run("remove", step="set-aside")
    assert listed(sharing) == []
    sharing.run("remove", step="delete")
    assert os.listdir(stored(sharing).parent) == []


def test_what_has_moved_away_leaves_no_snapshot(sharing: Worker) -> None:
    take(sharing, "one")
    left = ".#homemgr-left-alice.homedir.0123abcd"
    home = stored(sharing)
    home.rename(home.parent / left)
    sharing.run("abandon", directory=str(home.parent), name=left)
    assert os.listdir(home.parent) == []


def test_what_is_left_of_another_home_of_his_costs_nobody_his_snapshots(sharing: Worker) -> None:
    take(sharing, "one")
    home = stored(sharing)
    left = home.with_name(".#homemgr-left-alice.home.0123abcd")
    gone = home.with_name(".#homemgr-gone-alice.homeimage.0123abcd")
    for path in (left, gone):
        path.write_text("")
    swept(sharing)
    sharing.run("abandon", directory=str(home.parent), name=left.name)
    assert listed(sharing) == ["one"]
    assert not left.exists()
    assert not gone.exists()


def test_a_backup_tool_sees_it_under_its_own_uid(sharing: Worker) -> None:
    take(sharing, "one")
    view = sharing.area / "view"
    view.mkdir(mode=0o755)
    asked: dict[str, object] = {"name": "one", "path": str(view), "uid": BACKUP, "gid": BACKUP}
    sharing.run("snapshot-mount", **asked)
    try:
        found = (view / "note").stat()
        assert (found.st_uid, found.st_gid) == (BACKUP, BACKUP)
        with pytest.raises(OSError, match="Read-only"):
            (view / "note").write_text("changed")
        as_backup = ["cat", str(view / "note")]
        seen = subprocess.check_output(as_backup, user=BACKUP, group=BACKUP, extra_groups=[])
        assert seen == b"before"
        line = next(
            x for x in Path("/proc/self/mountinfo").read_text().splitlines() if f" {view} " in x
        )
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split(" ")[5].split(","))
        with pytest.raises(errors.HomeBusy, match="mounted at"):
            sharing.run("snapshot-remove", name="one", only_by=None)
        with pytest.raises(errors.PathExists):
            sharing.run("snapshot-mount", **asked)
    finally:
        sharing.run("snapshot-unmount", path=str(view))
    with pytest.raises(errors.HomeNotActive):
        sharing.run("snapshot-unmount", path=str(view))


def test_killed_at_any_step_a_snapshot_is_whole_or_not_there(
    sharing: Worker, tmp_path: Path
) -> None:
    told = {"prefix": "", "reason": "", "by_uid": 0, "automatic": False, "full_copy": False}
    # The directory is there from the first one on.
    take(sharing, "one")
    sharing.run("snapshot-remove", name="one", only_by=None)
    steps = sharing.steps(tmp_path / "trace", "snapshot", CALLS, name="one", **told)
    sharing.run("snapshot-remove", name="one", only_by=None)
    for step in steps:
        killed_at(sharing, step, "snapshot", name="one", **told)
        swept(sharing)
        if listed(sharing):
            assert listed(sharing) == ["one"]
            assert (shelf(sharing) / "one/home/note").read_text() == "before"
            sharing.run("snapshot-remove", name="one", only_by=None)
        assert os.listdir(shelf(sharing)) == []


def test_killed_at_any_step_of_its_removal_a_snapshot_is_whole_or_gone(
    sharing: Worker, tmp_path: Path
) -> None:
    told = {"name": "one", "only_by": None}
    take(sharing, "one")
    for step in sharing.steps(tmp_path / "trace", "snapshot-remove", CALLS, **told):
        if not listed(sharing):
            take(sharing, "one")
        killed_at(sharing, step, "snapshot-remove", **told)
        assert set(listed(sharing)) <= {"one"}
        swept(sharing)
        if listed(sharing):
            assert homes.compare(stored(sharing), shelf(sharing) / "one/home") == []
        else:
            assert os.listdir(shelf(sharing)) == []


def test_killed_at_any_step_of_a_restore_there_is_one_whole_home(
    sharing: Worker, tmp_path: Path
) -> None:
    home = stored(sharing)
    take(sharing, "one")

    def spoil() -> None:
        (home / "note").write_text("after")
        (home / "gone").unlink()

    spoil()
    steps = sharing.steps(tmp_path / "trace", "restore", CALLS, name="one", by_uid=0)
    assert len(steps) > 8
    for step in steps:
        for name in listed(sharing)[1:]:
            sharing.run("snapshot-remove", name=name, only_by=None)
        spoil()
        killed_at(sharing, step, "restore", name="one", by_uid=0)
        swept(sharing)
        (_, *kept) = listed(sharing)
        if (home / "gone").exists():
            assert (home / "note").read_text() == "before"
            # The state before it is there as well, under its name.
            (name,) = kept
            assert (shelf(sharing) / name / "home/note").read_text() == "after"
        else:
            assert (home / "note").read_text() == "after"
            assert kept == []
            restore(sharing, "one")
        assert sorted(os.listdir(shelf(sharing))) == sorted(listed(sharing))
        sharing.run("authenticate")


def test_what_cannot_be_read_just_now_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    home = tmp_path / "alice.homedir"
    home.mkdir()
    (home / "note").write_text("after")
    with opened(tmp_path) as parent, snapshot_shelf.make_shelf(parent, "alice") as place:

        def exchange() -> None:
            with snapshot_pending.begun(place, "other") as pending:
                os.mkdir(snapshot_entry.HOME, dir_fd=pending.place.fileno())
                snapshot_exchange.exchange(parent, home.name, pending, "other")

        with monkeypatch.context() as dying:
            dying.setattr(snapshot_exchange, "finish", raising(Killed()))
            with pytest.raises(Killed):
                exchange()
        assert os.listdir(home) == []
        with monkeypatch.context() as failing:
            failing.setattr(files, "read_bounded", raising(OSError(errno.EIO, "not now")))
            snapshot_exchange.sweep(parent, place)
        snapshot_exchange.sweep(parent, place)
        assert os.listdir(place.fileno()) == ["other"]
        note = tmp_path / snapshot_shelf.DIRECTORY / "alice/other/home/note"
        assert note.read_text() == "after"


def raising(error: BaseException) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail


def killed_at(worker: Worker, step: Step, verb: str, **more: object) -> None:
    with pytest.raises(KilledError):
        worker.run_killed(step, verb, **more)


def swept(worker: Worker) -> None:
    """What the next start of the service does."""
    worker.run("sweep", directories=[str(stored(worker).parent)])
