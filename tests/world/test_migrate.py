"""Homes move between two machines over ssh, with everything, and are usable on one of them only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt

from .. import homes
from . import machines, migration, users
from .box import Box, Result, wait_for
from .migration import IDENTITY, homemgr, is_usable, kept, migrate, on_disk, traveller
from .users import NOBODY, User


@pytest.fixture
def alice(here: Box, there: Box) -> Iterator[User]:
    """A user of the one machine with a home full of odd things, gone from both afterwards."""
    with traveller(here, there) as alice:
        yield alice


def test_a_person_moves_while_logged_in_and_moves_back(here: Box, there: Box, alice: User) -> None:
    session = ["sshpass", "-p", alice.password, "ssh", f"{alice.name}@localhost"]
    with here.background([*session, "touch at-work; exec cat"]) as work:
        wait_for(lambda: (on_disk(here, alice) / "at-work").exists(), "alice works")
        words = ["homemgr", "migrate", alice.name, there.name, "--trust", "--wait=60"]
        with here.background(words) as moving:
            wait_for(
                lambda: list(there.path("/home/.homemgr").glob(".#homemgr-in-*/odd/_large")),
                "most of it is there",
            )
            assert moving.poll() is None
            work.stdin.close()  # type: ignore[union-attr]
            said = moving.stdout.read()  # type: ignore[union-attr]
            assert moving.wait(60) == 0, said
    new = machines.at(there, alice)
    assert homes.compare(kept(here, alice), on_disk(there, alice), leave_out=IDENTITY) == []
    assert not on_disk(here, alice).exists()
    seen = new.ssh("pwd; stat -c owner=%u:%g at-work; cat odd/_large/0042")
    assert seen.stdout.split() == [new.home, f"owner={new.uid}:{new.uid}", "42"]
    new.wait_until("inactive")
    found = (on_disk(there, alice) / "at-work").stat()
    assert (found.st_uid, found.st_gid) == NOBODY
    refused = here.run(
        ["homemgr", "activate", alice.name], env={"PASSWORD": alice.password}, check=False
    )
    assert refused.code != 0
    assert there.name in refused.output
    new.homectl("passwd", new_password="on the new machine")
    new.password = "on the new machine"
    new.ssh("echo more >more")
    new.wait_until("inactive")
    migrate(there, new, here.name)
    back = User(here, alice.name, new.password)
    assert back.ssh("cat more; cat odd/_large/0042").stdout.split() == ["more", "42"]
    back.wait_until("inactive")
    assert not on_disk(there, alice).exists()


@pytest.fixture
def eve(here: Box, there: Box) -> Iterator[User]:
    """A user whose home is encrypted, gone from both afterwards."""
    user = users.create(here, "--storage=fscrypt")
    try:
        yield user
    finally:
        for box in (here, there):
            migration.forget(box, user)


def is_encrypted(user: User) -> bool:
    with Fd.open(str(user.box.path(user.image)), DIRECTORY_FLAGS) as top:
        return fscrypt.get_policy(top.fileno()) is not None


def test_an_encrypted_home_moves_while_logged_in_and_is_fetched_back(
    here: Box, there: Box, eve: User
) -> None:
    """What unlocks it goes with it through ssh, and nowhere else."""
    given = {"PASSWORD": eve.password}
    session = ["sshpass", "-p", eve.password, "ssh", f"{eve.name}@localhost"]
    work_of_a_day = "head -c 20000000 /dev/urandom >large; echo day >note; cat; echo over >note"
    with here.background([*session, work_of_a_day]) as work:
        wait_for(lambda: here.path(f"{eve.home}/note").exists(), "eve works")
        words = ["homemgr", "migrate", eve.name, there.name, "--trust", "--wait=60"]
        with here.background(words, env=given) as moving:
            arrived = f".#homemgr-inroom-{eve.name}*/*/note"
            wait_for(lambda: list(there.path("/home/.homemgr").glob(arrived)), "it is there")
            assert (moving.poll(), eve.state()) == (None, "active")
            work.stdin.close()  # type: ignore[union-attr]
            said = moving.stdout.read()  # type: ignore[union-attr]
            assert moving.wait(60) == 0, said
    new = machines.at(there, eve)
    assert new.ssh("cat note; wc -c <large; stat -c %u note").stdout.split() == [
        "over", "20000000", str(new.uid),
    ]  # fmt: skip
    assert is_encrypted(new)
    new.homectl("passwd", new_password="known to the new machine")
    new.password = "known to the new machine"
    new.wait_until("inactive")
    words = ["homemgr", "migrate", eve.name, "--from", there.name, "--trust"]
    here.run(words, env={"PASSWORD": new.password})
    back = User(here, eve.name, new.password)
    assert back.ssh("cat note; wc -c <large").stdout.split() == ["over", "20000000"]
    assert is_encrypted(back)
    back.wait_until("inactive")
    assert new.state() == "absent"
    for box in (here, there):
        logged = box.journal(lines=10_000)
        assert eve.password not in logged
        assert new.password not in logged


def test_a_refresh_sends_only_what_changed(here: Box, there: Box, alice: User) -> None:
    first = _result(migrate(here, alice, there.name, "--keep", "--json=short"))
    (on_disk(here, alice) / "new").write_text("new")
    os.chown(on_disk(here, alice) / "new", *NOBODY)
    second = _result(migrate(here, alice, there.name, "--keep", "--json=short"))
    assert second["sent_bytes"] < 20_000 < first["sent_bytes"]
    assert is_usable(here, alice)
    assert machines.at(there, alice).state() == ""


def _result(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_home_is_fetched_and_taken_back(here: Box, there: Box, alice: User) -> None:
    homemgr(there, "migrate", alice.name, "--from", here.name, "--trust")
    assert machines.at(there, alice).state() == "inactive"
    migrate(here, alice, there.name, "--undo")
    assert machines.at(there, alice).state() == ""
    assert is_usable(here, alice)


def test_an_origin_is_accepted_by_the_administrator_or_not_at_all(
    here: Box, there: Box, alice: User
) -> None:
    for fingerprint in _origins(there):
        homemgr(there, "origins", "forget", fingerprint)
    refused = homemgr(here, "migrate", alice.name, there.name, check=False)
    assert refused.code != 0
    assert "--trust" in refused.output
    assert is_usable(here, alice)
    migrate(here, alice, there.name)
    assert _origins(there)


def _origins(box: Box) -> list[str]:
    listed = json.loads(homemgr(box, "origins", "--json=short").stdout)
    return [origin["fingerprint"] for origin in listed]


def test_a_name_that_is_taken_is_refused_before_a_byte_is_sent(
    here: Box, there: Box, alice: User
) -> None:
    there.run(["useradd", "--no-create-home", alice.name])
    try:
        refused = migrate(here, alice, there.name, check=False)
    finally:
        there.run(["userdel", alice.name])
    assert refused.code != 0
    assert alice.name in refused.output
    assert not list(there.path("/home/.homemgr").glob(f".#homemgr-in-{alice.name}*"))
    assert is_usable(here, alice)


KILLS: dict[str, Callable[[Box, Box], None]] = {
    "service here": lambda here, there: _kill(here),
    "service there": lambda here, there: _kill(there),
    "wire": lambda here, there: machines.pull_plug(there),
}


def _kill(box: Box) -> None:
    box.run(["systemctl", "kill", "--signal=KILL", "homemgrd.service"])


@pytest.mark.parametrize("what", KILLS)
@pytest.mark.parametrize("after_s", ["0.4", "1.2"])
def test_broken_off_anywhere_the_same_command_goes_on(
    here: Box, there: Box, alice: User, what: str, after_s: str
) -> None:
    words = ["timeout", "-s", "INT", "25", "homemgr", "migrate", alice.name, there.name, "--trust"]
    with here.background(words) as moving:
        here.run(["sleep", after_s])
        KILLS[what](here, there)
        if what == "wire":
            here.run(["pkill", "-f", "homemgr transfer receive"], check=False)
            there.run(["pkill", "-f", "homemgr transfer receive"], check=False)
        moving.wait(60)
    machines.plug_in(there)
    for box in (here, there):
        box.run(["systemctl", "start", "homemgrd.service"])
    usable = [is_usable(box, alice) for box in (here, there)]
    assert usable.count(True) <= 1
    migrate(here, alice, there.name)
    assert homes.compare(kept(here, alice), on_disk(there, alice), leave_out=IDENTITY) == []
    assert [is_usable(box, alice) for box in (here, there)] == [False, True]


def test_an_export_is_imported_on_the_other_machine(here: Box, there: Box, alice: User) -> None:
    homemgr(here, "export", alice.name, "/root/alice.tar")
    here.run(["scp", "-q", "/root/alice.tar", f"{there.name}:/root/alice.tar"])
    homemgr(here, "remove", alice.name)
    there.run(["sh", "-c", "head -c 2000000 /root/alice.tar >/root/cut.tar"])
    refused = homemgr(there, "import", "/root/cut.tar", "--trust", check=False)
    assert refused.code != 0
    assert alice.name not in homemgr(there, "transfers").stdout
    assert not list(there.path("/home/.homemgr").glob(f"*{alice.name}*"))
    assert alice.name in homemgr(there, "import", "/root/alice.tar", "--trust").output
    new = machines.at(there, alice)
    assert new.ssh("cat odd/_large/0042").stdout == "42"
    new.wait_until("inactive")


def test_an_export_that_somebody_edited_is_refused(here: Box, there: Box, alice: User) -> None:
    """Even one whose manifest fits it: only the origin can seal it, or root vouch for it."""
    note = here.path(alice.image) / "note"
    note.write_text("the whole truth")
    os.chown(note, *NOBODY)
    homemgr(here, "export", alice.name, "/root/alice.tar")
    homemgr(here, "remove", alice.name)
    edited = migration.edited(here.path("/root/alice.tar").read_bytes(), b"the whole", b"half a ll")
    there.path("/root/edited.tar").write_bytes(edited.archive)
    words = ("import", "/root/edited.tar", "--trust")
    refused = homemgr(there, *words, check=False)
    assert refused.code != 0
    assert f"--trust={edited.digest}" in refused.output
    assert not list(there.path("/home/.homemgr").glob(f"*{alice.name}*"))
    # To accept whoever sends is not to accept whatever was done to it since.
    assert homemgr(there, *words, check=False).code != 0
    homemgr(there, *words, f"--trust={edited.digest}")
    new = machines.at(there, alice)
    assert new.ssh("cat note").stdout == "half a ll truth"
    new.wait_until("inactive")


def test_systemd_homed_opens_a_home_that_has_moved(here: Box, there: Box, alice: User) -> None:
    migrate(here, alice, there.name)
    there.run(["homemgr", "unsetup"])
    try:
        new = machines.at(there, alice)
        new.homectl("activate")
        assert new.state() == "active"
        new.homectl("deactivate")
    finally:
        there.run(["homemgr", "setup"])


def test_two_migrations_of_one_home_do_not_meet(here: Box, there: Box, alice: User) -> None:
    words = ["homemgr", "migrate", alice.name, there.name, "--trust"]
    with here.background(words) as first, here.background(words) as second:
        outputs = [moving.communicate(timeout=60)[0] for moving in (first, second)]
    assert 0 in (first.returncode, second.returncode), outputs
    migrate(here, alice, there.name)
    assert homes.compare(kept(here, alice), on_disk(there, alice), leave_out=IDENTITY) == []


def test_a_disk_without_room_is_told_before_anything_is_sent(
    here: Box, there: Box, alice: User
) -> None:
    found = os.statvfs(there.path("/home"))
    room = found.f_bavail * found.f_frsize - (6 << 20)
    there.run(["fallocate", "-l", str(room), "/home/filler"])
    try:
        refused = migrate(here, alice, there.name, check=False)
    finally:
        there.run(["rm", "/home/filler"])
    assert refused.code != 0
    assert "free" in refused.output
    assert is_usable(here, alice)
    migrate(here, alice, there.name)
    assert is_usable(there, alice)
