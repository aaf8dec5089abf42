"""Classic accounts become home areas by the real service, which is killed at each of its steps."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.lock import try_lock_byte
from homemgr.work.exclusion import position
from tests import volumes
from tests.service import converting, people
from tests.service.site import ROOT, Service, Site, wait_until
from tests.service.test_defects import update
from tests.volumes import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

# Nobody else's: a test beside this one may be at work as such a user.
UID = 3_000_001 + 2 * (os.getpid() % 100_000)
GID = UID + 1
PROGRAM = "import sys; from homemgr.cli.main import main; sys.exit(main(sys.argv[1:]))"
NOBODY = (65534, 65534)
LINES = {
    "passwd": "root:x:0:0::/root:/bin/sh\nbob:x:{uid}:{gid}:Bob:{home}:/bin/sh\ndaemon:x:1:1:::\n",
    "shadow": "root:*:1::::::\nbob:{hash}:19000:0:99999:7:::\ndaemon:*:1::::::\n",
    "group": "root:x:0:\nbob:x:{gid}:\naudio:x:29:bob,alice\n",
    "gshadow": "root:*::\nbob:!::\naudio:*::bob,alice\n",
}


@dataclass
class Account:
    """The account bob on one installation."""

    service: Service
    #: Where his home directory is.
    home: Path

    @property
    def image(self) -> Path:
        """Where his home area is."""
        return self.home.parent / ".homemgr/bob.homedir"

    @property
    def state(self) -> Path:
        """How far his conversion is."""
        return self.service.site.records / "classic" / "bob.json"

    def make(self) -> None:
        """Write the files of a machine that has him, and of his home."""
        directory = self.service.site.accounts
        directory.mkdir(exist_ok=True)
        for name, text in LINES.items():
            filled = text.format(uid=UID, gid=GID, home=self.home, hash=people.hashed())
            (directory / name).write_text(filled)
            (directory / name).chmod(0o640)
        (self.home / "sub").mkdir(parents=True, mode=0o700)
        (self.home / ".ssh").mkdir(mode=0o700)
        for number in range(30):
            (self.home / f"sub/{number}").write_text(f"content {number}\n")
        (self.home / ".ssh/authorized_keys").write_text("# mine\nssh-ed25519 AAAA bob\n")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, UID, GID)
        (self.home / "sub/of-root").write_text("of root\n")

    def files(self) -> dict[str, str]:
        """The account files as they are."""
        return {name: (self.service.site.accounts / name).read_text() for name in LINES}

    def phase(self) -> str:
        """The phase on disk; empty if there is none."""
        return str(json.loads(self.state.read_text())["phase"]) if self.state.exists() else ""

    def command(self, *options: str, user: str = "bob") -> subprocess.Popen[str]:
        """homemgr convert --classic bob, begun."""
        words = ["convert", "--classic", *options, *([user] if user else []), "--json=short"]
        return self._begun(*words)

    def homemgr(self, *words: str) -> None:
        """Any other command, to its end."""
        with self._begun(*words) as command:
            told, complaints = command.communicate(timeout=60)
        assert command.returncode == 0, told + complaints

    def _begun(self, *words: str) -> subprocess.Popen[str]:
        """The command line, begun."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env={
                **os.environ,
                "DBUS_SYSTEM_BUS_ADDRESS": self.service.site.bus_address,
                "PYTHONPATH": str(ROOT),
            },
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str) -> dict[str, object]:
        """The same, to its end."""
        command = self.command(*options)
        told, complaints = command.communicate(timeout=60)
        assert command.returncode == 0, complaints
        answer: dict[str, object] = json.loads(told)
        return answer

    def listed(self) -> list[dict[str, object]]:
        """homemgr convert --classic."""
        command = self.command(user="")
        told, complaints = command.communicate(timeout=60)
        assert command.returncode == 0, complaints
        found: list[dict[str, object]] = json.loads(told)
        return found

    def refused(self, *options: str) -> str:
        """What it complains of."""
        command = self.command(*options)
        _, complaints = command.communicate(timeout=60)
        assert command.returncode == 1
        return complaints

    @contextmanager
    def account_lock(self) -> Iterator[None]:
        """Nobody can change the account files."""
        with (self.service.site.accounts / ".pwd.lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def home_lock(self) -> Iterator[None]:
        """No worker can begin with his home."""
        path = self.service.site.runtime / "home/homemgr-workers.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as lock:
            assert try_lock_byte(lock.fileno(), position("bob"))
            yield


@pytest.fixture
def bob(own_service: Service) -> Account:
    """The account, with files of his and one of root's."""
    account = Account(own_service, own_service.site.home_root / "bob")
    account.make()
    return account


@pytest.fixture
def small(new_site: Callable[..., Site]) -> Iterator[Account]:
    """The same, where records and what is noted of conversions lie on a disk of their own."""
    site = new_site()
    site.records.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", site.records, size="2m", mode="0700")
    account = Account(Service(site), site.home_root / "bob")
    account.make()
    yield account
    account.service.close()
    mounts.umount2(str(site.records), 0)


def contents(top: Path) -> dict[str, str]:
    """Names of files, and what is in them."""
    return {
        str(path.relative_to(top)): path.read_text()
        for path in top.rglob("*")
        if path.is_file() and path.name != ".identity"
    }


def owners(top: Path) -> set[tuple[int, int]]:
    """Who owns anything in a tree."""
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (top, *top.rglob("*"))}


def assert_home_area(bob: Account) -> None:
    """He is a user of the service alone, and can use his home."""
    assert "bob" not in "".join(bob.files().values())
    assert owners(bob.image) == {NOBODY}
    assert bob.service.states()["bob"] == "inactive"
    bob.service.activate("bob")
    assert owners(bob.home) == {(UID, UID)}
    bob.service.deactivate("bob")


def assert_account(bob: Account, files: dict[str, str]) -> None:
    """He is in the account files alone, and his home is as it was."""
    assert bob.files() == files
    assert "bob" not in bob.service.states()
    assert not bob.image.exists()
    assert owners(bob.home) == {(UID, GID), (0, 0)}
    assert bob.phase() == ""
    assert not [path for path in bob.state.parent.iterdir() if "bob" in path.name]


def test_there_and_back_with_the_password_of_now(bob: Account) -> None:
    files, before = bob.files(), contents(bob.home)
    plan = bob.run("--dry-run")
    assert_account(bob, files)
    answer = bob.run()
    assert {**answer, "dry_run": True} == plan
    assert answer["report"]["counts"] == {  # type: ignore[index]
        "gid-changed": 1,
        "owner-changed": 2,
        "uid-outside-homed-range": 1,
    }
    assert_home_area(bob)
    assert contents(bob.image) == before
    record = bob.service.user_record("bob")
    assert record["privileged"]["sshAuthorizedKeys"] == ["ssh-ed25519 AAAA bob"]  # type: ignore[index,call-overload]
    assert "converted already" in bob.refused()
    (listed,) = bob.listed()
    assert {"user": "bob", "phase": "converted"}.items() <= listed.items()
    assert int(str(listed["until"])) - int(str(listed["when"])) == 30 * 86400 * 1_000_000
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    bob.service.call("ChangePasswordHome", "sss", "bob", new, old)
    for name in ("passwd", "group"):
        assert (bob.service.site.accounts / f"{name}-").read_text() == files[name]
        assert (bob.service.site.accounts / name).stat().st_mode & 0o777 == 0o640
    bob.run("--undo")
    after = bob.files()
    changed = after.pop("shadow").split("\n")[1].split(":")
    assert after == {name: text for name, text in files.items() if name != "shadow"}
    assert changed[1] not in ("", people.hashed())
    assert int(changed[2]) > 19000
    assert contents(bob.home) == before
    assert "No conversion of bob" in bob.refused("--undo")
    bob.run()
    bob.run("--confirm")
    assert "No conversion of bob" in bob.refused("--undo")


def test_a_home_elsewhere_stays_there_and_one_that_cannot_be_renamed_is_refused(
    bob: Account,
) -> None:
    other = bob.home.with_name("srv")
    other.mkdir(mode=0o755)
    bob.home.rename(other / "bob")
    assert "does not exist" in bob.refused()
    bob.home.symlink_to(other / "bob")
    assert f"is a symbolic link to {other}/bob" in bob.refused()
    bob.home.unlink()
    bob.home.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", bob.home)
    assert "is a file system of its own" in bob.refused()
    mounts.umount2(str(bob.home), 0)
    bob.home.rmdir()
    passwd = bob.service.site.accounts / "passwd"
    passwd.write_text(passwd.read_text().replace(str(bob.home), str(other / "bob")))
    bob.home, files = other / "bob", bob.files()
    bob.run()
    assert_home_area(bob)
    bob.service.restart()
    assert_home_area(bob)
    bob.run("--undo")
    assert_account(bob, files)
    passwd.write_text("root:x:0:0::/root:/bin/sh\n")
    assert "There is no account bob" in bob.refused()


def test_of_a_home_area_that_was_removed_nothing_can_be_undone(bob: Account) -> None:
    bob.run()
    bob.service.call("RemoveHome", "s", "bob")
    assert "No conversion of bob" in bob.refused("--undo")
    assert bob.phase() == ""
    bob.make()
    bob.run()
    bob.service.restart()
    assert_home_area(bob)
    bob.run("--confirm")
    assert bob.phase() == ""


def test_who_is_active_or_in_use_is_left_alone(bob: Account) -> None:
    files = bob.files()
    with (bob.home / "sub/1").open():
        assert "in use by" in bob.refused()
    (bob.home / "sub/1").rename(bob.home / ".identity")
    assert "needs for itself: .identity" in bob.refused()
    (bob.home / ".identity").rename(bob.home / "sub/1")
    assert_account(bob, files)
    bob.run()
    bob.service.activate("bob")
    assert "in use" in bob.refused("--undo")
    bob.service.deactivate("bob")
    with (bob.image / "sub/1").open():
        assert "in use by" in bob.refused("--undo")
    assert_home_area(bob)
    bob.run("--undo")
    assert_account(bob, files)


def test_what_was_taken_from_the_account_or_the_home_area_does_not_come_back(
    bob: Account,
) -> None:
    group = bob.service.site.accounts / "group"
    with bob.command() as command:
        with bob.account_lock():
            wait_until(lambda: bob.phase() == "surveyed", "it waits to take the account out")
            group.write_text(group.read_text().replace(":bob,alice", ":alice"))
        files = bob.files()
        _, complaints = command.communicate(timeout=60)
    assert "has just been changed by somebody else" in complaints
    assert bob.files() == files
    assert bob.phase() == ""
    group.write_text(group.read_text().replace(":alice", ":bob,alice"))
    with bob.account_lock(), bob.command() as command:
        wait_until(lambda: bob.phase() == "surveyed", "it waits to take the account out")
        bob.service.kill()
        command.communicate(timeout=60)
        group.write_text(group.read_text().replace(":bob,alice", ":alice"))
    bob.service.start()
    wait_until(lambda: bob.phase() == "", "it is taken back")
    assert bob.files() == files
    group.write_text(group.read_text().replace(":alice", ":bob,alice"))
    bob.run()
    update(bob.service, "bob", locked=True, memberOf=[])
    bob.run("--undo")
    assert ":alice\n" in bob.files()["group"]
    assert f"bob:!{people.hashed()}:19000:" in bob.files()["shadow"]


def test_undone_is_what_the_home_area_came_to_be_also_if_it_is_another_directory(
    bob: Account,
) -> None:
    files, before = bob.files(), contents(bob.home)
    bob.run()
    service, tree = bob.service, bob.image.stat().st_ino
    for member, *words in (
        ("CreateSnapshot", "bob", '{"name": "one", "full_copy": true}'),
        ("RestoreSnapshot", "bob", "one", "{}"),
    ):
        job = converting.call(service, member, "s" * len(words), *words)
        converting.wait(service, str(job[0]))
    converting.call(service, "RemoveSnapshot", "ss", "bob", "one")
    assert bob.image.stat().st_ino != tree
    bob.run("--undo")
    assert (bob.files(), contents(bob.home)) == (files, before)
    # What was root's is so no more: it is another file.
    assert owners(bob.home) == {(UID, GID)}
    assert bob.phase() == ""


def test_an_account_that_was_deleted_meanwhile_does_not_come_back(bob: Account) -> None:
    with bob.account_lock(), bob.command() as command:
        wait_until(lambda: bob.phase() == "surveyed", "it waits to take the account out")
        bob.service.kill()
        command.communicate(timeout=60)
    # As userdel does, which had the lock.
    for name, text in bob.files().items():
        kept = [line for line in text.split("\n") if not line.startswith("bob:")]
        (bob.service.site.accounts / name).write_text("\n".join(kept).replace("bob,", ""))
    deleted = bob.files()
    assert "bob" not in "".join(deleted.values())
    bob.service.start()
    wait_until(lambda: bob.phase() == "", "it is given up")
    assert bob.files() == deleted
    assert owners(bob.home) == {(UID, GID), (0, 0)}


@pytest.mark.parametrize(
    ("options", "lock", "phase", "is_home_area"),
    [
        ((), Account.account_lock, "surveyed", False),
        ((), Account.home_lock, "moving", True),
        (("--undo",), Account.home_lock, "returning", False),
        (("--undo",), Account.account_lock, "returning", False),
    ],
)
def test_killed_between_two_steps_it_is_finished_or_taken_back(
    bob: Account,
    options: tuple[str, ...],
    lock: Callable[[Account], AbstractContextManager[None]],
    phase: str,
    is_home_area: bool,
) -> None:
    files = bob.files()
    if options:
        bob.run()
    # Of who was killed while he wrote them.
    unfinished = bob.service.site.accounts / ".#shadow-0123456789abcdef"
    unfinished.write_text("root:*:1::::::")
    with lock(bob), bob.command(*options) as command:
        wait_until(lambda: bob.phase() == phase, f"it is {phase}")
        if lock is Account.account_lock and options:
            wait_until(lambda: (bob.home / "sub").exists(), "the files are back")
        bob.service.kill()
        command.communicate(timeout=60)
    if is_home_area:
        # Killed when it wrote the record.
        (bob.home / ".identity.homemgr-new").write_text("half of it")
    bob.service.start()
    if is_home_area:
        wait_until(lambda: bob.phase() == "converted", "it is finished")
        assert_home_area(bob)
        assert not (bob.image / ".identity.homemgr-new").exists()
    else:
        wait_until(lambda: bob.phase() == "", "it is taken back")
        assert_account(bob, files)
    assert unfinished.exists() is (phase == "surveyed")


def test_a_disk_of_records_that_is_full_leaves_the_account(small: Account) -> None:
    files, records = small.files(), small.service.site.records
    ballast = fill(records)
    assert "No space left" in small.refused()
    assert_account(small, files)
    ballast.unlink()
    # It fills up when the account is out: what has to be noted to take that back has its room.
    with small.command() as command:
        with small.home_lock():
            wait_until(lambda: small.phase() == "moving", "it is moving")
            ballast = fill(records)
        _, complaints = command.communicate(timeout=60)
    assert "No space left" in complaints
    assert_account(small, files)
    ballast.unlink()
    small.run()
    assert_home_area(small)


def test_what_could_not_be_finished_is_by_the_same_command(bob: Account) -> None:
    files = bob.files()
    bob.run()
    passwd = bob.service.site.accounts / "passwd"
    without = passwd.read_text()
    passwd.write_text(f"{without}eve:x:{UID}:100:::\n")
    assert "Account eve has the uid" in bob.refused("--undo")
    assert bob.phase() == "returning"
    bob.service.restart()
    assert "Account eve has the uid" in bob.refused("--undo")
    passwd.write_text(without)
    assert bob.run("--undo")["home"] == str(bob.home)
    assert_account(bob, files)


def test_an_undo_that_did_not_begin_is_not_done_later(bob: Account) -> None:
    bob.run()
    log = bob.service.site.log
    with bob.home_lock(), bob.command("--undo") as command:
        wait_until(lambda: bob.phase() == "returning", "it returns")
        wait_until(lambda: "waiting for it" in log.read_text(), "its worker waits")
        for pid in bob.service.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, complaints = command.communicate(timeout=60)
    assert "died unexpectedly" in complaints
    assert bob.phase() == "converted"
    assert_home_area(bob)


def test_an_undo_that_a_kill_interrupted_is_done_with_the_password_of_now(bob: Account) -> None:
    bob.run()
    told = json.loads(bob.state.read_text()) | {"phase": "returning"}
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    bob.service.call("ChangePasswordHome", "sss", "bob", new, old)
    bob.service.activate("bob", people.OTHER_PASSWORD)
    bob.service.kill()
    bob.state.write_text(json.dumps(told))
    bob.service.start()
    wait_until(lambda: bob.phase() == "converted", "it is given up: he is logged in")
    bob.service.deactivate("bob")
    bob.service.kill()
    bob.state.write_text(json.dumps(told))
    bob.service.start()
    wait_until(lambda: bob.phase() == "", "it is taken back")
    line = bob.files()["shadow"].split("\n")[1]
    assert line.startswith("bob:$")
    assert people.hashed() not in line


def test_a_worker_that_dies_leaves_the_account(bob: Account) -> None:
    files, log = bob.files(), bob.service.site.log
    with bob.command() as command:
        with bob.home_lock():
            wait_until(lambda: bob.phase() == "moving", "it moves")
            wait_until(lambda: "waiting for it" in log.read_text(), "its worker waits")
            for pid in bob.service.workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: bob.phase() == "returning", "it is taken back")
        _, complaints = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "died unexpectedly" in complaints
    assert_account(bob, files)


@pytest.fixture
def shared(new_site: Callable[..., Site], tmp_path: Path) -> Iterator[Account]:
    """The same, on a file system where snapshots cost nothing."""
    site = new_site()
    volumes.mount_image(tmp_path / "image", "xfs", site.home_root)
    account = Account(Service(site), site.home_root / "bob")
    account.make()
    yield account
    account.service.close()
    mounts.umount2(str(site.home_root), 0)


def test_an_undo_leaves_no_snapshots_and_takes_none_that_was_wanted(shared: Account) -> None:
    files, shelves = shared.files(), shared.service.site.base / ".homemgr-snapshots"
    shared.run()
    (shared.image / ".identity").chmod(0o644)
    shared.homemgr("repair", "bob")
    shared.homemgr("snapshot", "create", "bob", "mine")
    assert len(list((shelves / "bob").iterdir())) == 2
    complaint = shared.refused("--undo")
    assert "snapshots of home area bob" in complaint
    assert ": mine. Restore" in complaint
    assert shared.phase() == "converted"
    assert_home_area(shared)
    shared.homemgr("snapshot", "remove", "bob", "mine")
    shared.run("--undo")
    assert_account(shared, files)
    assert not shelves.exists()
