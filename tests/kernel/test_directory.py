"""Storage `directory` on real file systems: owners on both sides, all or nothing, cleaning up."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import HomeAbsent, HostileHome, InvalidArgs, NotSupported, PathExists
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.record.effective import EffectiveRecord
from homemgr.record.machine import Machine
from homemgr.storage import directory, embedded, idmapping, mountpoint, paths
from homemgr.storage.idmapping import NOBODY, IdMapping
from homemgr.storage.kind import Content, Image, Words
from homemgr.storage.kinds import storage_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

LOCAL = 60001
RECORD = b'{"userName":"alice"}'
NAME = "alice.homedir"
ANYBODY = EffectiveRecord({"userName": "alice"}, Machine("0" * 31 + "1"))


def make_skeleton(path: Path) -> Path:
    (path / "deep" / "er").mkdir(parents=True)
    (path / ".profile").write_text("umask 022\n")
    (path / "deep" / "er" / "file").write_bytes(b"x" * 5000)
    (path / "link").symlink_to("/etc/passwd")
    return path


def create(base: Fd, name: str = NAME, skeleton: Path | None = None, **more: object) -> list[str]:
    arguments = {
        "access_mode": 0o700,
        "skeleton": None if skeleton is None else str(skeleton),
        "identity": RECORD,
        "blobs": {},
    } | more
    return directory.create(base, name, **arguments)  # type: ignore[arg-type]


def owners(top: Path) -> set[tuple[int, int]]:
    found = {(top.lstat().st_uid, top.lstat().st_gid)}
    for path in top.rglob("*"):
        found.add((path.lstat().st_uid, path.lstat().st_gid))
    return found


@pytest.fixture
def shown(every_area: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A new home, strictly mapped and mounted: where it lies and where it is seen."""
    yield from show(every_area, tmp_path, idmapping.strict(NOBODY, LOCAL))


@pytest.fixture
def shown_wide(every_area: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The same with systemd-homed's ranges."""
    yield from show(every_area, tmp_path, idmapping.homed(NOBODY, LOCAL))


def show(area: Path, tmp_path: Path, mapping: IdMapping) -> Iterator[tuple[Path, Path]]:
    with paths.ensure_base(str(area / "base")) as base:
        create(base, skeleton=make_skeleton(tmp_path / "skel"))
    stored, seen = area / "base" / NAME, area / "alice"
    activate(stored, seen, mapping)
    yield stored, seen
    mountpoint.take_away(str(seen))


def activate(stored: Path, seen: Path, mapping: IdMapping) -> None:
    with directory.open_home(str(stored)) as top, mountpoint.prepare(str(seen)) as target:
        mount = directory.attach(top, mapping, nosuid=True, nodev=True, noexec=False)
        mountpoint.publish(mount, target)


def run_as(uid: int, *argv: str) -> None:
    subprocess.run(argv, check=True, user=uid, group=uid, extra_groups=[])


def test_owner_is_local_inside_and_nobody_on_disk(shown: tuple[Path, Path]) -> None:
    stored, seen = shown
    assert owners(stored) == {(NOBODY, NOBODY)}
    assert owners(seen) == {(LOCAL, LOCAL)}
    run_as(LOCAL, "sh", "-c", f"mkdir {seen}/new && echo hello > {seen}/new/file")
    assert owners(seen) == {(LOCAL, LOCAL)}
    assert owners(stored) == {(NOBODY, NOBODY)}
    assert (stored / "new" / "file").read_text() == "hello\n"


def test_nothing_can_be_stored_under_other_ids(shown: tuple[Path, Path]) -> None:
    stored, seen = shown
    for action in (
        lambda: (seen / "roots").touch(),
        lambda: (seen / "roots").mkdir(),
        lambda: os.chown(seen / ".profile", 0, 0),
        lambda: os.chown(seen / ".profile", 1000, -1),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
            action()
    assert owners(stored) == {(NOBODY, NOBODY)}


def test_foreign_files_of_the_disk_show_as_nobodys(shown: tuple[Path, Path]) -> None:
    stored, seen = shown
    (stored / "stray").touch()
    found = (seen / "stray").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)


def test_wide_mapping_keeps_system_ids(shown_wide: tuple[Path, Path]) -> None:
    stored, seen = shown_wide
    (seen / "roots").touch()
    assert (stored / "roots").stat().st_uid == 0
    assert (seen / ".profile").stat().st_uid == LOCAL
    with pytest.raises(OSError, match=os.strerror(errno.EOVERFLOW)):
        os.chown(seen / ".profile", 60002, 60002)


def test_mount_is_private_restricted_and_where_it_belongs(shown: tuple[Path, Path]) -> None:
    _stored, seen = shown
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        (line,) = [line for line in file if line.split()[4] == str(seen)]
    options = line.split()[5].split(",")
    assert {"nosuid", "nodev", "idmapped"} <= set(options)
    assert "noexec" not in options
    assert "shared:" not in line


def test_new_home_has_what_it_was_given(every_area: Path, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path / "skel")
    (skeleton / ".identity").write_text("not from here")
    os.mkfifo(skeleton / "deep" / "fifo")
    (tmp_path / "blob").write_bytes(b"picture")
    with (
        paths.ensure_base(str(every_area / "base")) as base,
        Fd.open(str(tmp_path / "blob"), os.O_RDONLY) as blob,
    ):
        skipped = create(
            base, skeleton=skeleton, access_mode=0o750, blobs={"avatar": blob.fileno()}
        )
    home = every_area / "base" / NAME
    assert skipped == ["deep/fifo"]
    assert (home / ".identity").read_bytes() == RECORD
    assert (home / ".identity-blob" / "avatar").read_bytes() == b"picture"
    modes = {
        name: stat.S_IMODE((home / name).stat().st_mode)
        for name in ("", ".identity", ".identity-blob", ".identity-blob/avatar", ".profile")
    }
    assert modes == {
        "": 0o750,
        ".identity": 0o600,
        ".identity-blob": 0o700,
        ".identity-blob/avatar": 0o644,
        ".profile": 0o644,
    }
    assert owners(home) == {(NOBODY, NOBODY)}
    assert os.listdir(every_area / "base") == [NAME]


def test_existing_target_is_left_alone(base: Fd, area: Path) -> None:
    create(base)
    (area / "base" / NAME / "mine").touch()
    with pytest.raises(PathExists, match=NAME):
        create(base)
    (area / "base" / "bob.homedir").symlink_to("nowhere")
    with pytest.raises(PathExists):
        create(base, "bob.homedir")
    assert sorted(os.listdir(area / "base")) == [NAME, "bob.homedir"]
    assert (area / "base" / NAME / "mine").exists()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\0b", "x" * 250])
def test_impossible_names_are_refused(base: Fd, name: str) -> None:
    with pytest.raises(InvalidArgs):
        create(base, name)
    with pytest.raises(InvalidArgs):
        directory.set_aside(base, name)


def test_missing_skeleton_is_an_empty_one(base: Fd, area: Path) -> None:
    assert create(base, skeleton=area / "missing") == []
    assert os.listdir(area / "base" / NAME) == [".identity"]


def test_no_ownership_call_whatever_the_size(area: Path, tmp_path: Path) -> None:
    """Create and activate are traced over a tree of a thousand files: not one chown."""
    skeleton = tmp_path / "skel"
    for number in range(10):
        (skeleton / str(number)).mkdir(parents=True)
        for inner in range(100):
            (skeleton / str(number) / str(inner)).touch()
    script = f"""
from homemgr.storage import directory, idmapping, mountpoint, paths
with paths.ensure_base({str(area / "base")!r}) as base:
    directory.create(base, {NAME!r}, access_mode=0o700, skeleton={str(skeleton)!r},
                     identity=b"{{}}", blobs={{}})
with directory.open_home({str(area / "base" / NAME)!r}) as top:
    with mountpoint.prepare({str(area / "alice")!r}) as target:
        mount = directory.attach(top, idmapping.strict(65534, 60001),
                                 nosuid=True, nodev=True, noexec=False)
        mountpoint.publish(mount, target)
mountpoint.take_away({str(area / "alice")!r})
"""
    trace = tmp_path / "trace"
    calls = "trace=chown,fchown,lchown,fchownat,mount_setattr"
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", calls, sys.executable, "-c", script],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    text = trace.read_text()
    assert text.count("mount_setattr(") == 1
    assert "chown" not in text
    assert owners(area / "base" / NAME) == {(NOBODY, NOBODY)}


def kill_after(lines: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that dies by SIGKILL after so many lines of ours; True if done."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: FrameType, _event: str, _value: object) -> object:
            nonlocal left
            if "/homemgr/" not in frame.f_code.co_filename:
                return None
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def test_killed_create_leaves_nothing_or_a_home(base: Fd, area: Path, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path / "skel")
    lines, done, swept = 0, False, 0
    while not done:
        done = kill_after(lines, lambda: create(base, skeleton=skeleton))
        below = area / "base"
        # From the first byte, also of what is not finished.
        assert all(owners(path) == {(NOBODY, NOBODY)} for path in below.iterdir())
        names = directory.sweep(base).new
        assert names in ([], [NAME])
        swept += len(names)
        if (below / NAME).exists():
            assert (below / NAME / ".identity").read_bytes() == RECORD
            directory.remove(base, NAME)
        assert os.listdir(below) == []
        lines += 5
    assert swept > 10


def test_killed_remove_is_finished_by_the_sweep(base: Fd, area: Path, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path / "skel")
    lines, done, seen = 0, False, set()
    while not done:
        if not (area / "base" / NAME).exists():
            create(base, skeleton=skeleton)
        done = kill_after(lines, lambda: directory.remove(base, NAME))
        swept = directory.sweep(base)
        left = os.listdir(area / "base")
        # Either not begun, and then whole, or gone.
        assert (swept.gone, left) in (([], [NAME]), ([NAME], []), ([], []))
        if left:
            assert (area / "base" / NAME / ".identity").read_bytes() == RECORD
        seen.add(bool(swept.gone))
        lines += 7
    assert seen == {True, False}


def test_sweep_leaves_work_in_progress_and_strangers(base: Fd, area: Path) -> None:
    for name in (".#homemgr-new-a.homedir.0001", ".#homemgr-new-b.homedir.0002"):
        (area / "base" / name).mkdir()
    (area / "base" / ".#homemgr-gone-c@example.com.homedir.0003").mkdir()
    (area / "base" / ".#homemgr-new-file.0004").touch()
    (area / "base" / "d.homedir").mkdir()
    busy = str(area / "base" / ".#homemgr-new-a.homedir.0001")
    with Fd.open(busy, DIRECTORY_FLAGS) as worked_on:
        fcntl.flock(worked_on.fileno(), fcntl.LOCK_EX)
        swept = directory.sweep(base)
    assert swept == (["b.homedir"], ["c@example.com.homedir"], [])
    assert sorted(os.listdir(area / "base")) == [
        ".#homemgr-new-a.homedir.0001",
        ".#homemgr-new-file.0004",
        "d.homedir",
    ]


def test_sweep_at_the_same_time_disturbs_no_creation(base: Fd, area: Path, tmp_path: Path) -> None:
    skeleton = make_skeleton(tmp_path / "skel")
    sweeper = os.fork()
    if sweeper == 0:
        while True:
            directory.sweep(base)
    try:
        for number in range(80):
            name = f"user{number}.homedir"
            create(base, name, skeleton)
            assert (area / "base" / name / ".identity").read_bytes() == RECORD
            assert (area / "base" / name / "deep" / "er" / "file").exists()
            directory.remove(base, name)
    finally:
        os.kill(sweeper, signal.SIGKILL)
        os.waitpid(sweeper, 0)


def test_tree_that_cannot_be_swept_keeps_no_other(base: Fd, area: Path) -> None:
    for name in (".#homemgr-gone-a.homedir.0001", ".#homemgr-gone-b.homedir.0002"):
        (area / "base" / name).mkdir()
    marked = area / "base" / ".#homemgr-gone-a.homedir.0001"
    subprocess.run(["chattr", "+i", str(marked)], check=True)
    try:
        assert directory.sweep(base).gone == ["b.homedir"]
    finally:
        subprocess.run(["chattr", "-i", str(marked)], check=True)
    assert directory.sweep(base).gone == ["a.homedir"]


def test_removal_goes_in_two_steps(base: Fd, area: Path) -> None:
    create(base)
    create(base, "alice.homedir.old")
    aside = directory.set_aside(base, NAME)
    assert not (area / "base" / NAME).exists()
    assert (area / "base" / aside / ".identity").exists()
    directory.delete_aside(base, NAME)
    assert os.listdir(area / "base") == ["alice.homedir.old"]
    with pytest.raises(HomeAbsent, match=NAME):
        directory.set_aside(base, NAME)


def test_home_of_systemd_homed_opens_with_its_own_owner(area: Path) -> None:
    stored = area / "bob.homedir"
    stored.mkdir(mode=0o700)
    (stored / ".identity").write_bytes(RECORD)
    for path in (stored, stored / ".identity"):
        os.chown(path, 60123, 60124)
    with directory.open_home(str(stored)) as top:
        assert (top.disk_uid, top.disk_gid) == (60123, 60124)
        assert embedded.read_identity(top) == RECORD
    mapping = idmapping.homed(60123, LOCAL, 60124, LOCAL)
    activate(stored, area / "bob", mapping)
    assert owners(area / "bob") == {(LOCAL, LOCAL)}
    mountpoint.take_away(str(area / "bob"))


def test_what_is_no_home_is_not_opened(area: Path) -> None:
    (area / "real").mkdir()
    (area / "link").symlink_to("real")
    (area / "file").touch()
    for name, error in (
        ("missing", HomeAbsent),
        ("missing/deeper", HomeAbsent),
        ("link", HostileHome),
        ("file", HostileHome),
        ("real", HostileHome),  # root's
    ):
        with pytest.raises(error, match=str(area / name)):
            directory.open_home(str(area / name))


def test_a_subvolume_that_systemd_homed_made_is_opened_and_removed(every_area: Path) -> None:
    if not _is_btrfs(every_area):
        return
    image = every_area / "alice.homedir"
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(image)], check=True)
    os.chown(image, NOBODY, NOBODY)
    (image / "deep").mkdir()
    (image / "deep" / "note").touch()
    storage = storage_named("subvolume")
    with storage.open(Image(str(image), ANYBODY), Words(), is_active=False) as area:
        assert (area.top.disk_uid, area.top.disk_gid) == (NOBODY, NOBODY)
    with Fd.open(str(every_area), os.O_RDONLY | os.O_DIRECTORY) as parent:
        storage.set_aside(parent, image.name)
        storage.delete_aside(parent, image.name)
    assert os.listdir(every_area) == []


def test_a_new_home_is_a_subvolume_on_btrfs_and_refused_elsewhere(
    every_area: Path, tmp_path: Path
) -> None:
    storage = storage_named("subvolume")
    with paths.ensure_base(str(every_area / "base")) as base:
        content = Content(0o750, str(make_skeleton(tmp_path / "skel")), RECORD, {})
        image = Image(str(every_area / "base" / NAME), ANYBODY)
        make = partial(storage.create, image, base, NAME, content, Words())
        if not _is_btrfs(every_area):
            with pytest.raises(NotSupported, match="not on btrfs"):
                make()
            assert os.listdir(every_area / "base") == []
            return
        make()
        home = every_area / "base" / NAME
        assert home.stat().st_ino == 256
        assert stat.S_IMODE(home.stat().st_mode) == 0o750
        assert owners(home) == {(NOBODY, NOBODY)}
        with pytest.raises(PathExists):
            make()
        storage.set_aside(base, NAME)
        storage.delete_aside(base, NAME)
    assert os.listdir(every_area / "base") == []


def _is_btrfs(path: Path) -> bool:
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, check=True)
    return done.stdout.strip() == b"btrfs"
