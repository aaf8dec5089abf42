"""Every file of a hostile home directory becomes nobody's, and goes back to whom it was of."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import HomeBusy, HostileHome, NotSupported
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import mounts
from homemgr.storage import owner_survey, owners
from homemgr.storage.owner_ledger import Ledger
from homemgr.storage.owners import Owner
from homemgr.transfer import acl
from tests import volumes
from tests.kernel import kills

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWNER = Owner(61001, 61002)
OTHER = 61005
NOBODY = 65534
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
RESERVED = frozenset({b".identity"})

Seen = dict[str, tuple[object, ...]]


@pytest.fixture
def tree(area: Path) -> Iterator[Path]:
    """A directory of the owner's, with all that users and administrators can put into one."""
    top = area / "home"
    top.mkdir(mode=0o750)
    for name in ("plain", "sub/deep/er/file", "own-setid", "roots", "roots-setid", "others"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"of {name}\n")
    (top / "link").symlink_to("/etc/passwd")
    (top / "roots-link").symlink_to("plain")
    os.mkfifo(top / "fifo")
    os.mknod(top / "whiteout", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))
    (top / os.fsdecode(b"\xff\n")).write_text("a strange name")
    os.link(top / "plain", top / "sub/second-name")
    (top / "listed").write_text("with a list")
    (top / "capable").write_text("with a capability")
    (top / "group").write_text("of another group")
    (top / "nobodys").write_text("nobody's already")
    for path in (top, *top.rglob("*")):
        os.chown(path, *OWNER, follow_symlinks=False)
        if not path.is_symlink():
            os.utime(path, ns=(10**18, 10**18 + len(path.name)))
    os.chown(top / "roots", 0, 0)
    os.chown(top / "roots-setid", 0, 0)
    os.chown(top / "roots-link", 0, 0, follow_symlinks=False)
    os.chown(top / "others", OTHER, OTHER)
    os.chown(top / "group", OWNER.uid, 44)
    os.chown(top / "nobodys", NOBODY, NOBODY)
    (top / "own-setid").chmod(0o6755)
    (top / "roots-setid").chmod(0o4755)
    (top / "sub").chmod(0o2770)
    os.setxattr(top / "capable", "security.capability", CAPABILITY)
    os.setxattr(top / "listed", acl.ACCESS, list_for(OWNER.uid, OTHER))
    os.setxattr(top / "sub", acl.DEFAULT, list_for(OWNER.uid))
    os.setxattr(top / "plain", "user.mine", b"kept")
    yield top
    subprocess.run(["rm", "-rf", top], check=True)


def list_for(*uids: int) -> bytes:
    """An access control list that lets these users write."""
    entries = [acl.AclEntry(tag, acl.NO_ID, 6) for tag in (1, 4, 0x10, 0x20)]
    return acl.build(sorted(entries + [acl.AclEntry(acl.USER, uid, 6) for uid in uids]))


def seen(top: Path) -> Seen:
    """Everything about a tree but the times of inodes."""
    found: Seen = {}
    for path in (top, *top.rglob("*")):
        status = path.lstat()
        attributes = [] if path.is_symlink() else os.listxattr(path)
        values = {name: os.getxattr(path, name) for name in attributes}
        found[str(path.relative_to(top))] = (
            *(status.st_uid, status.st_gid, status.st_mode, status.st_mtime_ns, status.st_nlink),
            path.read_bytes() if stat.S_ISREG(status.st_mode) else b"",
            values,
        )
    return found


def owners_of(top: Path) -> set[tuple[int, int]]:
    """Who owns anything in it."""
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (top, *top.rglob("*"))}


class Home:
    """A tree, opened, and its ledger."""

    def __init__(self, top: Path) -> None:
        self.path = top
        self.ledger = Ledger(str(top.parent), "bob.owners")

    def survey(self) -> owner_survey.Surveyed:
        with Fd.open(str(self.path), DIRECTORY_FLAGS) as top:
            return owner_survey.survey(top, OWNER, self.ledger, _quiet, reserved=RESERVED)

    def take(self) -> int:
        with Fd.open(str(self.path), DIRECTORY_FLAGS) as top:
            return owners.take(top, OWNER, self.ledger, _quiet)

    def give_back(self) -> dict[str, int]:
        with Fd.open(str(self.path), DIRECTORY_FLAGS) as top:
            return dict(owners.give_back(top, OWNER, self.ledger, _quiet).counts)


def _quiet(files: int, size: int) -> None:
    """Progress that nobody reads."""


def test_everything_becomes_nobodys_and_goes_back_as_it_was(tree: Path) -> None:
    home = Home(tree)
    before = seen(tree)
    found = home.survey()
    assert seen(tree) == before
    assert found.report.counts == {
        "acl-entry-dropped": 1,
        "capability-dropped": 1,
        "owner-changed": 9,
        "setid-cleared": 1,
    }
    assert home.take() == found.files == len(before)
    taken = seen(tree)
    assert owners_of(tree) == {(NOBODY, NOBODY)}
    assert {name: entry[3:6] for name, entry in taken.items()} == {
        name: entry[3:6] for name, entry in before.items()
    }
    modes = {name: stat.S_IMODE(int(str(entry[2]))) for name, entry in taken.items()}
    assert (modes["own-setid"], modes["roots-setid"], modes["sub"]) == (0o6755, 0o755, 0o2770)
    assert "security.capability" not in os.listxattr(tree / "capable")
    listed = acl.parse(os.getxattr(tree / "listed", acl.ACCESS))
    assert [entry.id for entry in listed if entry.tag == acl.USER] == [NOBODY]
    assert os.getxattr(tree / "plain", "user.mine") == b"kept"
    assert home.give_back() == {}
    assert seen(tree) == before


def test_what_its_user_changed_since_stays_his(tree: Path) -> None:
    home = Home(tree)
    before = seen(tree)
    home.survey()
    home.take()
    (tree / "roots-setid").write_text("evil\n")
    (tree / "capable").write_text("evil\n")
    (tree / "others").chmod(0o4755)
    (tree / "new").write_text("made since\n")
    os.setxattr(tree / "new", acl.ACCESS, list_for(NOBODY))
    os.chown(tree / "new", NOBODY, NOBODY)
    (tree / "roots").unlink()
    assert home.give_back() == {"owner-not-restored": 4}
    after = seen(tree)
    for name in ("roots-setid", "capable", "others", "new"):
        assert after[name][:2] == tuple(OWNER), name
        assert "security.capability" not in os.listxattr(tree / name)
    assert not (tree / "roots-setid").stat().st_mode & stat.S_ISUID
    entries = acl.parse(os.getxattr(tree / "new", acl.ACCESS))
    assert [entry.id for entry in entries if entry.tag == acl.USER] == [OWNER.uid]
    same = set(before) - {"roots-setid", "capable", "others", "roots", "."}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_what_cannot_be_taken_over_is_refused_before_anything_changes(tree: Path) -> None:
    home = Home(tree)
    os.mknod(tree / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    os.link(tree / "others", tree.parent / "outside")
    (tree / ".identity").write_text("mine")
    subprocess.run(["chattr", "+i", tree / "group"], check=True)
    before = seen(tree)
    with pytest.raises(NotSupported) as refusal:
        home.survey()
    for word in ("device nodes: disk", "elsewhere: others", "itself: .identity", "1)): group"):
        assert word in str(refusal.value)
    assert seen(tree) == before
    subprocess.run(["chattr", "-i", tree / "group"], check=True)
    (tree.parent / "outside").unlink()


def test_mounts_inside_are_refused(tree: Path) -> None:
    home = Home(tree)
    volumes.mount_new("tmpfs", "tmpfs", tree / "sub")
    try:
        with pytest.raises(HomeBusy, match="mounted at 'sub'"):
            home.survey()
    finally:
        mounts.umount2(str(tree / "sub"), 0)


def test_a_tree_that_changed_since_the_survey_is_left_to_be_taken_back(tree: Path) -> None:
    home = Home(tree)
    before = seen(tree)
    home.survey()
    (tree / "zz").write_text("root's, and not in the ledger")
    with pytest.raises(HostileHome, match="'zz' was changed"):
        home.take()
    (tree / "zz").unlink()
    os.utime(tree, ns=(10**18, 10**18 + len(tree.name)))
    assert home.give_back() == {}
    assert seen(tree) == before


def test_another_file_with_the_inode_of_roots_is_not_made_roots(tree: Path) -> None:
    home = Home(tree)
    home.survey()
    # What is left when the user has replaced it, and the new file has got the same inode.
    (tree / "roots-setid").write_text("evil\n")
    os.chown(tree / "roots-setid", *OWNER)
    (tree / "roots-setid").chmod(0o4755)
    with pytest.raises(HostileHome, match="'roots-setid' was changed"):
        home.take()
    home.give_back()
    assert seen(tree)["roots-setid"][:2] == tuple(OWNER)
    assert seen(tree)["roots"][:2] == (0, 0)


def test_a_file_in_a_subvolume_with_the_inode_of_roots_is_not_made_roots(
    btrfs_area: Path,
) -> None:
    home = Home(btrfs_area / "home")
    # One of its own as well: the first numbers of both are the same.
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(home.path)], check=True)
    target = home.path / "roots-setid"
    target.write_text("of root")
    target.chmod(0o4755)
    os.chown(home.path, *OWNER)
    home.survey()
    home.take()
    volume = home.path / "volume"
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(volume)], check=True)
    twin = volume / "0"
    # Numbers are given one after the other.
    for number in range(1000):
        twin = volume / str(number)
        twin.write_text("evil")
        if twin.stat().st_ino >= target.stat().st_ino:
            break
    assert twin.stat().st_ino == target.stat().st_ino
    for path in (volume, *volume.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    assert home.give_back() == {}
    assert (twin.stat().st_uid, stat.S_IMODE(twin.stat().st_mode) & 0o7000) == (OWNER.uid, 0)
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (0, 0o4755)
    with pytest.raises(NotSupported, match="subvolumes: volume"):
        home.survey()


@pytest.mark.parametrize("verb", ["take", "give_back"])
def test_killed_at_any_step_it_is_done_again(tree: Path, tmp_path: Path, verb: str) -> None:
    home = Home(tree)
    before = seen(tree)
    home.survey()
    calls = ("fchownat", "chmod", "fchmodat", "setxattr", "removexattr", "rename", "fsync")
    program = [sys.executable, "-m", "tests.kernel.one_owner", str(tree), verb]
    if verb == "give_back":
        home.take()
    trace = tmp_path / "trace"
    _run(["strace", "-f", *kills.recording(trace, calls), *program])
    steps = kills.recorded(trace, calls)
    assert {"fchownat", "setxattr", "rename"} <= {step.name for step in steps}
    taken = seen(tree) if verb == "take" else None
    for step in steps[:: max(1, len(steps) // 12)]:
        if verb == "give_back":
            home.survey()
            home.take()
        else:
            home.give_back()
            assert seen(tree) == before
            home.survey()
        assert _run(["strace", "-f", *kills.killing(step), *program]) != 0, step
        getattr(home, verb)()
        assert seen(tree) == (taken if verb == "take" else before), step


def _run(command: list[str]) -> int:
    return subprocess.run(command, check=False, timeout=60).returncode
