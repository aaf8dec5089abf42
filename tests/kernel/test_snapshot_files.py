"""Single files brought back from a snapshot, and what differs from one, against hostile homes."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from homemgr import errors
from homemgr.storage import mountpoint
from homemgr.storage.tree import delete_tree
from homemgr.work.snapshot_diff import changes
from tests.kernel.jobs import Worker

from .. import homes
from .travels import opened

NOBODY, ALICE = 65534, 60456


@pytest.fixture(scope="module", autouse=True)
def disks(file_system: Callable[..., Path]) -> None:
    """The file systems, mounted before anybody counts mounts."""
    for kind in ("btrfs", "xfs"):
        file_system(f"snapshots-{kind}", kind, 512 << 20)


@pytest.fixture(params=["btrfs", "xfs"])
def alice(request: pytest.FixtureRequest, file_system: Callable[..., Path]) -> Iterator[Worker]:
    """A worker for alice, whose home has things worth having again, and snapshot ``one`` of it."""
    kind = request.param
    area = file_system(f"snapshots-{kind}", kind, 512 << 20) / "area"
    area.mkdir(mode=0o755)
    storage = "subvolume" if kind == "btrfs" else "directory"
    worker = Worker(area, extra={"storage": storage})
    worker.run("create", storage=storage)
    home = stored(worker)
    (home / "work/deep").mkdir(parents=True)
    (home / "work/deep/report").write_text("before")
    (home / "work/deep").chmod(0o750)
    os.setxattr(home / "work/deep/report", "user.by", b"alice")
    (home / "work/tool").write_text("tool")
    (home / "work/tool").chmod(0o4755)
    (home / "work/shortcut").symlink_to("deep")
    (home / "out").symlink_to("/etc")
    (home / os.fsdecode(b"odd \xff\n")).write_text("odd")
    homes.give_away(home)
    (home / "work/tool").chmod(0o4755)
    # Of somebody else, as a container may leave it: only he may read it.
    (home / "work/foreign").write_text("not yours")
    os.chown(home / "work/foreign", 1234, 1234)
    (home / "work/foreign").chmod(0o600)
    worker.run(
        "snapshot", name="one", prefix="", reason="", by_uid=0, automatic=False, full_copy=False
    )
    yield worker
    if mountpoint.is_active(str(area / "alice")):
        mountpoint.take_away(str(area / "alice"))
    with opened(area.parent) as parent:
        delete_tree(parent, "area")


def stored(worker: Worker) -> Path:
    return worker.area / ".homemgr" / "alice.homedir"


def have_again(worker: Worker, *paths: str | bytes, force: bool = False) -> dict[str, object]:
    told = [os.fsencode(path).decode("latin-1") for path in paths]
    return worker.run("snapshot-files", name="one", paths=told, force=force)


def sh(worker: Worker, script: str) -> None:
    """Run something as alice in her home."""
    command = ["/bin/sh", "-ec", script]
    home = worker.area / "alice"
    subprocess.run(command, check=True, cwd=home, user=ALICE, group=ALICE, extra_groups=[])


@pytest.mark.parametrize("is_active", [True, False])
def test_a_file_comes_back_as_its_users(alice: Worker, is_active: bool) -> None:
    alice.run("activate")
    sh(alice, "rm -r work/deep; echo mine >work/tool; rm odd*")
    if not is_active:
        alice.run("deactivate")
    result = have_again(alice, "work/deep/report", b"odd \xff\n")
    assert (result["restored"], result["counts"]) == (2, {})
    report = stored(alice) / "work/deep/report"
    assert report.read_text() == "before"
    assert os.getxattr(report, "user.by") == b"alice"
    for path in (report, report.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    assert stat.S_IMODE(report.parent.stat().st_mode) == 0o750
    # Nothing is replaced unless that is asked for.
    with pytest.raises(errors.PathExists, match="--force"):
        have_again(alice, "work/tool")
    assert (stored(alice) / "work/tool").read_text() == "mine\n"
    have_again(alice, "work/tool", force=True)
    tool = stored(alice) / "work/tool"
    assert tool.read_text() == "tool"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755
    have_again(alice, "work/shortcut", force=True)
    assert os.readlink(stored(alice) / "work/shortcut") == "deep"


def test_a_directory_comes_back_beside_what_is_there(alice: Worker) -> None:
    alice.run("activate")
    sh(alice, "rm -r work/deep; echo mine >work/tool; mkdir work/deep; touch work/deep/new")
    result = have_again(alice, "work")
    kept = {tuple(one) for one in cast("list[list[str]]", result["kept"])}
    assert kept == {
        ("exists", "work/tool"),
        ("exists", "work/shortcut"),
        ("exists", "work/foreign"),
    }
    assert result["restored"] == 1
    found = stored(alice) / "work"
    assert (found / "deep/report").read_text() == "before"
    assert (found / "deep/new").exists()
    assert (found / "tool").read_text() == "mine\n"
    # What its user could not read he does not get this way either.
    os.unlink(found / "foreign")
    assert have_again(alice, "work", force=True)["counts"] == {"denied": 1}
    assert not (found / "foreign").exists()
    assert not list(found.rglob(".#*"))


def test_what_its_user_may_not_enter_keeps_nothing_else_from_coming_back(alice: Worker) -> None:
    # As programs for containers leave them.
    for name in ("work/closed", "work/deep/barred"):
        (stored(alice) / name / "in").mkdir(parents=True)
        homes.give_away(stored(alice) / name)
    (stored(alice) / "work/closed").chmod(0)
    told: dict[str, object] = {"reason": "", "by_uid": 0, "automatic": False, "full_copy": False}
    alice.run("snapshot", name="two", prefix="", **told)
    (stored(alice) / "work/tool").unlink()
    (stored(alice) / "work/deep/barred").chmod(0)
    result = alice.run("snapshot-files", name="two", paths=["work"], force=True)
    kept = {tuple(one) for one in cast("list[list[str]]", result["kept"])}
    denied = {"work/closed", "work/deep/barred", "work/foreign"}
    assert {path for why, path in kept if why == "denied"} == denied
    assert (stored(alice) / "work/tool").read_text() == "tool"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "work/../../x", "", "work//tool", "."])
def test_nothing_outside_the_home_is_reached(alice: Worker, path: str) -> None:
    with pytest.raises(errors.InvalidArgs, match="no path below the home"):
        have_again(alice, path)


def test_links_lead_nowhere(alice: Worker) -> None:
    with pytest.raises(errors.HostileHome, match="links are not followed"):
        have_again(alice, "out/passwd")
    with pytest.raises(errors.FileNotFound):
        have_again(alice, "work/nothing")
    alice.run("activate")
    elsewhere = alice.area / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    sh(alice, f"rm -r work/deep; ln -s {elsewhere} work/deep; rm work/tool; mkdir work/tool")
    for force in (False, True):
        with pytest.raises(errors.HostileHome, match="links are not followed"):
            have_again(alice, "work/deep/report", force=force)
        kept = cast("list[list[str]]", have_again(alice, "work", force=force)["kept"])
        assert ["exists", "work/deep"] in kept
        assert ["exists", "work/tool"] in kept
    assert os.listdir(elsewhere) == []
    sh(alice, "rm work/deep; mkdir work/deep")
    deep = str(alice.area / "alice/work/deep")
    subprocess.run(["mount", "-t", "tmpfs", "none", deep], check=True)
    try:
        with pytest.raises(errors.HostileHome, match="mounts not entered"):
            have_again(alice, "work/deep/report", force=True)
    finally:
        subprocess.run(["umount", deep], check=True)


def test_a_link_that_goes_while_it_is_looked_at_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to("here")
        os.utime(tmp_path / name / "link", ns=(0, 0), follow_symlinks=False)
    readlink = os.readlink

    def going(path: bytes, *, dir_fd: int) -> bytes:
        if readlink(f"/proc/self/fd/{dir_fd}").endswith("/new"):
            raise FileNotFoundError(errno.ENOENT, "gone")
        return readlink(path, dir_fd=dir_fd)

    with opened(tmp_path / "old") as old, opened(tmp_path / "new") as new:
        assert list(changes(old, new)) == []
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(os, "readlink", going)
            assert list(changes(old, new)) == [(b"link", "changed", "symlink")]


def differences(worker: Worker, to: str = "") -> dict[str, str]:
    text = str(worker.run("snapshot-diff", name="one", to=to)["json"])
    assert text.isascii()
    answer = json.loads(text)
    assert answer["complete"]
    return {one["path"]: one["what"] for one in answer["changes"]}


def test_what_has_changed_is_told_by_name(alice: Worker) -> None:
    assert differences(alice) == {}
    alice.run("activate")
    sh(
        alice,
        "mkdir new; echo 1 >new/file; rm work/deep/report; chmod 600 work/tool; rm odd*;"
        " rm work/shortcut; ln -s elsewhere work/shortcut; rm out; mkdir out; echo x >work/-; :"
        " >\"$(printf 'b\\377')\"",
    )
    os.sync()
    expected = {
        "new": "added",
        "new/file": "added",
        "work/deep/report": "removed",
        "work/tool": "changed",
        "work/shortcut": "changed",
        "work/-": "added",
        "out": "replaced",
        os.fsdecode(b"odd \xff\n"): "removed",
        os.fsdecode(b"b\xff"): "added",
    }
    assert differences(alice) == expected
    alice.run(
        "snapshot", name="two", prefix="", reason="", by_uid=0, automatic=False, full_copy=False
    )
    sh(alice, "echo later >later")
    assert differences(alice, "two") == expected
