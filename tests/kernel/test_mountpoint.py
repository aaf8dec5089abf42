"""Where homes are seen: what may become such a place, and who keeps a home from going."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import HomeAlreadyActive, HomeBusy, HomeNotActive, PathExists, UnsafePath
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import loop, mounts
from homemgr.kernel.holders import Target, find_holders
from homemgr.kernel.statx import place
from homemgr.kernel.syscall import AT_EMPTY_PATH, AT_FDCWD
from homemgr.storage import mountpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[bytes]]

#: Programs that hold what they are given in one way each, then sleep.
HOLD = {
    "cwd": "import os,sys,time; os.chdir(sys.argv[1])",
    "fd 3": "import os,sys,time; os.open(sys.argv[1] + '/file', 0)",
    "root": "import os,sys,time; os.chroot(sys.argv[1])",
    "mapping": (
        "import mmap,os,sys,time; fd = os.open(sys.argv[1] + '/file', 0);"
        "m = mmap.mmap(fd, 4096, prot=mmap.PROT_READ);"
        "os.closerange(3, 64)"
    ),
}
SLEEP = "; print(flush=True); time.sleep(60)"


@pytest.fixture
def stored(area: Path) -> Path:
    """What is shown at the home directory."""
    path = area / "stored"
    path.mkdir()
    (path / "file").write_bytes(b"x" * 8192)
    return path


@pytest.fixture
def home(area: Path, stored: Path) -> Iterator[Path]:
    """An active home, gone after the test whatever happened."""
    path = area / "alice"
    publish(stored, path)
    yield path
    while mountpoint.is_active(str(path)):
        mounts.umount2(str(path), mounts.MNT_DETACH)


def publish(stored: Path, home: Path) -> None:
    with mountpoint.prepare(str(home)) as target, Fd.open(str(stored), DIRECTORY_FLAGS) as fd:
        mount = mounts.open_tree(fd.fileno(), "", AT_EMPTY_PATH | mounts.OPEN_TREE_CLONE)
        mountpoint.publish(mount, target)
        assert not mount.is_open


def tmpfs(target: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(target)], check=True)


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_missing_directory_is_made_closed(area: Path) -> None:
    before = os.umask(0)
    try:
        mountpoint.prepare(str(area / "alice")).close()
    finally:
        os.umask(before)
    assert owner_and_mode(area / "alice") == (0, 0, 0o700)


def test_empty_directory_of_a_user_is_taken_from_him(area: Path) -> None:
    (area / "alice").mkdir()
    os.chown(area / "alice", 60001, 60001)
    (area / "alice").chmod(0o777)
    mountpoint.prepare(str(area / "alice")).close()
    assert owner_and_mode(area / "alice") == (0, 0, 0o700)


def test_full_directory_is_left_as_it_is(area: Path) -> None:
    (area / "alice" / "mail").mkdir(parents=True)
    os.chown(area / "alice", 60001, 60001)
    with pytest.raises(HomeBusy, match="not empty"):
        mountpoint.prepare(str(area / "alice"))
    assert owner_and_mode(area / "alice") == (60001, 60001, 0o755)


def test_home_that_is_stored_where_it_is_seen_may_be_full(area: Path, stored: Path) -> None:
    with Fd.open(str(stored), DIRECTORY_FLAGS) as image:
        mountpoint.prepare(str(stored), own_image=image).close()
    assert owner_and_mode(stored) == (0, 0, 0o755)


def test_links_and_files_are_refused(area: Path) -> None:
    (area / "real").mkdir()
    (area / "link").symlink_to("real")
    (area / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafePath, match="not a directory"):
            mountpoint.prepare(str(area / name))


def test_parent_that_a_user_can_write_is_refused(area: Path) -> None:
    (area / "open").mkdir()
    (area / "open").chmod(0o1777)
    with pytest.raises(UnsafePath, match="1777"):
        mountpoint.prepare(str(area / "open" / "alice"))
    assert os.listdir(area / "open") == []


def test_home_is_shown_once(home: Path, stored: Path) -> None:
    assert mountpoint.is_active(str(home))
    assert (home / "file").exists()
    with pytest.raises(HomeAlreadyActive):
        mountpoint.prepare(str(home))
    mountpoint.take_away(str(home))
    assert not mountpoint.is_active(str(home))
    assert owner_and_mode(home) == (0, 0, 0o700)
    assert os.listdir(home) == []


def test_what_is_not_mounted_is_not_active(area: Path) -> None:
    (area / "plain").mkdir()
    (area / "file").touch()
    for name in ("plain", "missing", "file", "file/below"):
        assert not mountpoint.is_active(str(area / name))
        with pytest.raises(HomeNotActive):
            mountpoint.take_away(str(area / name))
        with pytest.raises(HomeNotActive):
            mountpoint.take_away(str(area / name), force=True)


def test_place_for_a_new_home_must_be_free(area: Path, home: Path) -> None:
    mountpoint.require_unused(str(area / "missing"))
    (area / "ours").mkdir(mode=0o700)
    mountpoint.require_unused(str(area / "ours"))
    (area / "users").mkdir()
    (area / "file").touch()
    (area / "full").mkdir(mode=0o700)
    (area / "full" / "x").touch()
    for name in ("users", "file", "full"):
        with pytest.raises(PathExists, match=name):
            mountpoint.require_unused(str(area / name))
    with pytest.raises(HomeAlreadyActive):
        mountpoint.require_unused(str(home))


def test_discarding_removes_only_an_empty_directory(area: Path, home: Path) -> None:
    (area / "ours").mkdir(mode=0o700)
    (area / "full" / "x").mkdir(parents=True)
    (area / "file").touch()
    for path in (area / "ours", area / "full", area / "file", home, area / "no" / "no"):
        mountpoint.discard(str(path))
    assert sorted(os.listdir(area)) == ["alice", "file", "full", "stored"]


@pytest.mark.parametrize("way", sorted(HOLD))
def test_holder_is_named_and_nothing_changes(home: Path, other_process: Start, way: str) -> None:
    child = other_process(HOLD[way] + SLEEP, str(home))
    with pytest.raises(HomeBusy) as caught:
        mountpoint.take_away(str(home))
    what = f"mapping of {home}/file" if way == "mapping" else way
    assert f"[{child.pid}] ({what})" in caught.value.message
    assert (home / "file").exists()
    child.kill()
    child.wait()
    mountpoint.take_away(str(home))


def test_running_program_is_a_holder(home: Path, area: Path) -> None:
    subprocess.run(["cp", "/bin/sleep", str(home / "napper")], check=True)
    child = subprocess.Popen([str(home / "napper"), "60"], cwd="/")
    try:
        with pytest.raises(HomeBusy, match=rf"napper\[{child.pid}\] \(exe\)"):
            mountpoint.take_away(str(home))
    finally:
        child.kill()
        child.wait()


def test_many_holders_are_counted_not_listed(home: Path, other_process: Start) -> None:
    for _child in range(7):
        other_process(HOLD["cwd"] + SLEEP, str(home))
    with pytest.raises(HomeBusy, match=r"(\S+ \(cwd\), ){5}2 more\.$"):
        mountpoint.take_away(str(home))


def test_holder_in_another_mount_namespace_is_named(area: Path, stored: Path) -> None:
    """Its copy of the mount has another id, but keeps ours busy where mounts propagate."""
    shared = area / "shared"
    shared.mkdir()
    tmpfs(shared)
    shared.chmod(0o755)
    try:
        mounts.mount_setattr(AT_FDCWD, str(shared), 0, propagation=mounts.MS_SHARED)
        home = shared / "alice"
        publish(stored, home)
        script = f"cd {home} && echo && exec sleep 60"
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
            try:
                assert child.stdout is not None
                child.stdout.readline()
                with pytest.raises(HomeBusy, match=rf"\[{child.pid}\] \(cwd\)"):
                    mountpoint.take_away(str(home))
            finally:
                child.kill()
        mountpoint.take_away(str(home))
    finally:
        mounts.umount2(str(shared), mounts.MNT_DETACH)


def test_transient_reference_is_no_busy_home(home: Path) -> None:
    held = os.open(home, os.O_PATH)
    release = threading.Timer(0.08, os.close, (held,))
    release.start()
    mountpoint.take_away(str(home))
    release.join()


def test_file_used_as_a_block_device_is_named(home: Path) -> None:
    """No process has it open: the kernel itself holds the home."""
    subprocess.run(["truncate", "-s", "1M", str(home / "image")], check=True)
    with Fd.open(str(home / "image"), os.O_RDWR) as image:
        attached = loop.attach(image.fileno())
    with attached.device:
        device = os.path.basename(attached.path)
        with pytest.raises(HomeBusy, match=rf"{device} \(block device of {home}/image\)"):
            mountpoint.take_away(str(home))
    mountpoint.take_away(str(home))


def test_reference_without_a_name_is_waited_for_and_then_admitted(home: Path) -> None:
    # A descriptor under way between two processes: nobody has it now.
    sender, receiver = socket.socketpair()
    with sender, receiver:
        with Fd.open(str(home), os.O_PATH) as held:
            socket.send_fds(sender, [b"x"], [held.fileno()])
        begun = time.monotonic()
        with pytest.raises(HomeBusy, match="has no process"):
            mountpoint.take_away(str(home))
        assert 0.1 < time.monotonic() - begun < 2
    mountpoint.take_away(str(home))


DEAD_FUSE = """
import os, subprocess, sys, time
fd = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(fd, True)
options = f"fd={fd},rootmode=40000,user_id=60001,group_id=60001"
subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "dead", sys.argv[1]],
               check=True, close_fds=False)
print(flush=True)
time.sleep(60)
"""


def test_dead_fuse_mount_of_the_user_neither_hangs_nor_stops_us(
    home: Path, other_process: Start
) -> None:
    """Its server never answers, and it would not let root look anyway."""
    (home / "remote").mkdir()
    # In our mount namespace, since the child shares it.
    other_process(DEAD_FUSE, str(home / "remote"))
    begun = time.monotonic()
    mountpoint.take_away(str(home))
    assert time.monotonic() - begun < 2


def test_we_ourselves_are_named_too(home: Path) -> None:
    with (
        Fd.open(str(home), os.O_PATH) as fd,
        pytest.raises(HomeBusy, match=rf"\[{os.getpid()}\] \(fd {fd.fileno()}\)"),
    ):
        mountpoint.take_away(str(home))


def test_forced_home_is_gone_for_newcomers(home: Path, other_process: Start) -> None:
    tmpfs_below = home / "below"
    tmpfs_below.mkdir()
    tmpfs(tmpfs_below)
    other_process(HOLD["cwd"] + SLEEP, str(home))
    mountpoint.take_away(str(home), force=True)
    assert not mountpoint.is_active(str(home))
    assert os.listdir(home) == []


def test_mounts_inside_go_along(home: Path) -> None:
    for name in ("a", "a/b", "with space"):
        (home / name).mkdir()
        tmpfs(home / name)
    tmpfs(home / "a")
    mountpoint.take_away(str(home))
    assert not mountpoint.is_active(str(home))


@pytest.mark.parametrize("force", [False, True])
def test_mount_over_the_home_does_not_leave_the_home_behind(home: Path, *, force: bool) -> None:
    tmpfs(home)
    mountpoint.take_away(str(home), force=force)
    assert not mountpoint.is_active(str(home))


def test_mount_over_a_busy_home_does_not_hide_who_is_in_the_way(
    home: Path, other_process: Start
) -> None:
    holder = other_process(HOLD["cwd"] + SLEEP, str(home))
    tmpfs(home)
    with pytest.raises(HomeBusy, match=str(holder.pid)):
        mountpoint.take_away(str(home))
    assert (home / "file").exists()


def test_busy_home_keeps_the_mounts_inside(home: Path, other_process: Start) -> None:
    (home / "inner").mkdir()
    tmpfs(home / "inner")
    (home / "inner" / "file").touch()
    for path in (home, home / "inner"):
        child = other_process(HOLD["cwd"] + SLEEP, str(path))
        with pytest.raises(HomeBusy, match=rf"\[{child.pid}\] \(cwd\)"):
            mountpoint.take_away(str(home))
        assert (home / "inner" / "file").exists()
        child.kill()
        child.wait()
    mountpoint.take_away(str(home))


def test_link_in_the_home_does_not_lead_to_a_foreign_mount(home: Path, area: Path) -> None:
    """The user swaps the way to his mount for a link to somebody else's."""
    (home / "way" / "mnt").mkdir(parents=True)
    tmpfs(home / "way" / "mnt")
    foreign = area / "foreign"
    (foreign / "mnt").mkdir(parents=True)
    tmpfs(foreign / "mnt")
    # Hide the directory: a mount point cannot be renamed, but what leads to it can.
    (home / "way").rename(home / "elsewhere")
    (home / "way").symlink_to(foreign)
    mountpoint.take_away(str(home))
    assert place(AT_FDCWD, str(foreign / "mnt")).is_mount_root
    mounts.umount2(str(foreign / "mnt"), 0)


def test_search_ends_in_time_and_finds_ourselves(home: Path) -> None:
    with Fd.open(str(home), DIRECTORY_FLAGS) as held:
        where = place(held.fileno())
        target = Target(frozenset({where.mount_id}), where.device, str(home))
        found = find_holders(target, limit_s=5)
        assert [holder.pid for holder in found] == [os.getpid()]
        assert found[0].uid == 0
        assert found[0].what == f"fd {held.fileno()}"
        assert find_holders(target, limit_s=-1) == []
