"""The mount calls: what is below a mount, mount roots, loop devices, renames, watches."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import inotify, loop, mountinfo, mounts
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from homemgr.kernel.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from homemgr.kernel.statx import place
from homemgr.kernel.syscall import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOK = os.O_PATH | os.O_DIRECTORY


@pytest.fixture
def nest(area: Path) -> Iterator[Path]:
    """A tmpfs with mounts inside mounts, one on top of another, and odd names."""
    top = area / "top"
    top.mkdir()
    tmpfs(top)
    for name in ("a", "a/b c", "x"):
        (top / name).mkdir()
        tmpfs(top / name)
    tmpfs(top / "x")
    yield top
    mounts.umount2(str(top), mounts.MNT_DETACH)


def tmpfs(target: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(target)], check=True)


def test_submounts_are_found_topmost_first(nest: Path) -> None:
    with Fd.open(str(nest), LOOK) as root:
        found = mountinfo.submounts(root.fileno())
    assert sorted(m.mount_point for m in found) == ["a", "a/b c", "x", "x"]
    order = {m.mount_id: index for index, m in enumerate(found)}
    for mount in found:
        # Whatever is mounted on it comes earlier.
        assert all(
            order[m.mount_id] < order[mount.mount_id]
            for m in found
            if m.parent_id == mount.mount_id
        )


def test_calls_and_text_agree(nest: Path) -> None:
    with Fd.open(str(nest), LOOK) as root:
        by_calls = mountinfo.submounts(root.fileno())
        top, by_text = mountinfo.from_mountinfo(place(root.fileno()).mount_id)
    assert top.mount_point == str(nest)
    assert {(m.mount_id, m.parent_id) for m in by_calls} == {
        (m.mount_id, m.parent_id) for m in by_text
    }
    assert {str(nest / m.mount_point) for m in by_calls} == {m.mount_point for m in by_text}


def test_mount_root_is_told_from_a_directory(nest: Path) -> None:
    (nest / "plain").mkdir()
    assert place(AT_FDCWD, str(nest)).is_mount_root
    assert place(AT_FDCWD, str(nest / "a")).is_mount_root
    assert not place(AT_FDCWD, str(nest / "plain")).is_mount_root
    # The directory under a mount, held since before, is none.
    with Fd.open(str(nest / "plain"), LOOK) as held:
        tmpfs(nest / "plain")
        assert not place(held.fileno()).is_mount_root


def test_a_failing_call_names_itself_and_the_path(area: Path) -> None:
    with pytest.raises(OSError, match="umount2") as caught:
        mounts.umount2(str(area / "missing"), 0)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(area / "missing")


def test_openat2_keeps_its_rules(nest: Path) -> None:
    (nest / "link").symlink_to("a")
    with Fd.open(str(nest), LOOK) as root:
        for path, number in (("../top", errno.EXDEV), ("link", errno.ELOOP), ("a", errno.EXDEV)):
            rules = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
            with pytest.raises(OSError, match="openat2") as caught:
                openat2(root.fileno(), path, os.O_PATH, rules)
            assert caught.value.errno == number
        openat2(root.fileno(), "a", os.O_PATH, RESOLVE_BENEATH).close()


def test_rename_refuses_to_replace_and_swaps(area: Path) -> None:
    (area / "a").write_text("a")
    (area / "b").write_text("b")
    with Fd.open(str(area), DIRECTORY_FLAGS) as fd:
        with pytest.raises(FileExistsError):
            renameat2(fd.fileno(), "a", fd.fileno(), "b", RENAME_NOREPLACE)
        renameat2(fd.fileno(), "a", fd.fileno(), "b", RENAME_EXCHANGE)
    assert (area / "a").read_text() == "b"


def test_loop_device_goes_when_its_last_user_goes(area: Path) -> None:
    image = area / "image"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with Fd.open(str(image), os.O_RDONLY) as backing:
        attached = loop.attach(backing.fileno(), read_only=True)
    with attached.device:
        name = os.path.basename(attached.path)
        with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as file:
            assert file.read().strip().endswith("/image")
        with open(f"/sys/block/{name}/ro", encoding="ascii") as file:
            assert file.read().strip() == "1"
    # The descriptor was the last user: nothing keeps the image now.
    assert subprocess.run(["losetup", "-j", str(image)], capture_output=True).stdout == b""


def test_a_read_only_loop_device_is_shared_with_who_wants_the_same(area: Path) -> None:
    image = area / "image"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with Fd.open(str(image), os.O_RDWR) as backing:
        number = backing.fileno()
        with (
            loop.attach(number).device,
            loop.attach_shared(number, offset=4096, size_limit=8192).device,
        ):
            first = loop.attach_shared(number)
            same = loop.attach_shared(number)
            other = loop.attach_shared(number, offset=4096)
            with first.device, same.device, other.device:
                assert first.path == same.path != other.path
    assert subprocess.run(["losetup", "-j", str(image)], capture_output=True).stdout == b""


def test_bad_backing_file_is_an_error_not_an_endless_search(area: Path) -> None:
    with Fd.open(str(area), LOOK) as directory, pytest.raises(OSError, match="LOOP_CONFIGURE"):
        loop.attach(directory.fileno())


def test_watch_reports_what_happens_to_names(area: Path) -> None:
    with inotify.inotify_init() as watch:
        assert inotify.read_events(watch.fileno()) == []
        wanted = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_TO
        number = inotify.inotify_add_watch(watch.fileno(), str(area), wanted)
        (area / "x").mkdir()
        (area / "x").rename(area / "y.homedir")
        (area / "y.homedir").rmdir()
        events = inotify.read_events(watch.fileno())
    assert {event.watch for event in events} == {number}
    assert [(event.name, event.mask & ~inotify.IN_ISDIR) for event in events] == [
        ("x", inotify.IN_CREATE),
        ("y.homedir", inotify.IN_MOVED_TO),
        ("y.homedir", inotify.IN_DELETE),
    ]
