"""Accounts of useradd become home areas in place, and classic accounts again: real logins."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from . import logins, users
from .box import Box, wait_for
from .conftest import World
from .test_crash import wait_for_service
from .users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

WORLDS = (World(), World(base="sid"))
FILES = ("passwd", "shadow", "group", "gshadow")
PASSWORD = "old and long enough"
MORE = 4000


def account_files(box: Box) -> dict[str, str]:
    """The account files as they are."""
    return {name: box.read(f"/etc/{name}") for name in FILES}


def owners(box: Box, path: str) -> set[tuple[int, int]]:
    """Who owns what below a path."""
    top = box.path(path)
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (top, *users.walk(top))}


@pytest.fixture
def bob(box: Box) -> Iterator[users.User]:
    """An account as administrators make them, who has logged in."""
    box.run(["groupadd", "-r", "project"])
    box.run(["useradd", "-m", "-s", "/bin/bash", "-c", "Bob Builder,Room 7", "bob"])
    box.run(["usermod", "-aG", "project,audio", "bob"])
    box.run(["gpasswd", "-A", "bob", "project"])
    box.run(["chpasswd"], stdin=f"bob:{PASSWORD}\n")
    made = users.User(box, "bob", PASSWORD)
    made.ssh("mkdir -p work; echo mine >work/file; chmod 600 work/file; ln -s work/file link")
    box.write("/home/bob/of-root", "root's\n")
    idle(box)
    yield made
    box.run(["homectl", "deactivate", "bob"], check=False)
    box.run(["homemgr", "convert", "--classic", "--undo", "bob"], check=False)
    box.run(["userdel", "-r", "bob"], check=False)
    box.run(["groupdel", "project"], check=False)


def idle(box: Box) -> None:
    """Wait until nothing of bob runs: his manager outlives the last session."""
    box.run(["loginctl", "terminate-user", "bob"], check=False)
    wait_for(lambda: box.run(["pgrep", "-u", "bob"], check=False).code != 0, "bob is gone", 30)


def convert(box: Box, *options: str) -> dict[str, object]:
    """homemgr convert --classic bob; its answer."""
    argv = ["homemgr", "convert", "--classic", *options, "bob", "--json=short"]
    answer: dict[str, object] = json.loads(box.run(argv).stdout)
    return answer


def test_an_account_becomes_a_home_area_and_an_account_again(box: Box, bob: users.User) -> None:
    before, uid = account_files(box), bob.uid
    box.path("/home/bob/of-root").chmod(0o4755)
    plan = convert(box, "--dry-run")
    assert plan["report"]["counts"]["setid-cleared"] == 1  # type: ignore[index]
    assert account_files(box) == before
    answer = convert(box)
    assert (answer["files"], answer["uid"]) == (plan["files"], uid)
    assert answer["memberOf"] == ["audio", "project"]
    assert not [text for text in account_files(box).values() if "bob" in text]
    assert owners(box, "/home/.homemgr/bob.homedir") == {NOBODY}
    assert bob.state() == "inactive"
    assert "bob" in box.run(["userdbctl", "user", "bob"]).stdout
    seen = bob.ssh("cat work/file; stat -c %u work/file of-root .; id -Gn; echo since >since")
    assert seen.stdout.split()[:4] == ["mine", *[str(uid)] * 3]
    assert set(seen.stdout.split()[4:]) == {"bob", "audio", "project"}
    record = bob.record()
    assert (record["realName"], record["location"]) == ("Bob Builder", "Room 7")
    bob.wait_until("inactive", 30)
    bob.homectl("passwd", new_password="new and long enough")
    bob.password = "new and long enough"
    bob.ssh()
    bob.wait_until("inactive", 30)
    told = convert(box, "--undo")
    assert told["report"]["counts"] == {}  # type: ignore[index]
    after = account_files(box)
    assert {n: t for n, t in after.items() if n != "shadow"} == {
        n: t for n, t in before.items() if n != "shadow"
    }
    assert bob.state() == ""
    assert bob.uid == uid
    assert owners(box, "/home/bob") == {(uid, uid), (0, 0)}
    assert box.path("/home/bob/of-root").stat().st_mode & 0o7777 == 0o4755
    assert bob.ssh("cat work/file since").stdout.split() == ["mine", "since"]
    assert "Permission denied" in logins.ssh(box, "bob", PASSWORD, check=False).stderr
    idle(box)


def test_who_is_logged_in_is_not_converted(box: Box, bob: users.User) -> None:
    before, sleeps = account_files(box), ["pgrep", "-u", "bob", "-x", "sleep"]
    with box.background(["setpriv", "--reuid=bob", "--clear-groups", "sleep", "60"]) as sleeper:
        wait_for(lambda: box.run(sleeps, check=False).code == 0, "bob sleeps")
        refused = box.run(["homemgr", "convert", "--classic", "bob"], check=False)
        assert refused.code == 1
        assert "running processes: sleep" in refused.output
        sleeper.kill()
    assert account_files(box) == before


@pytest.mark.base("debian12")
@pytest.mark.parametrize("moment", ["moving", "owners"])
def test_killed_at_any_moment_there_is_one_account(box: Box, bob: users.User, moment: str) -> None:
    many = f"mkdir many; cd many; seq {MORE} | xargs touch"
    bob.ssh(many)
    idle(box)
    before, state = account_files(box), box.path("/var/lib/homemgr/classic/bob.json")
    stage = box.path("/home/.homemgr/.#homemgr-classic-bob")

    def is_reached() -> bool:
        # Both come and go.
        with suppress(FileNotFoundError):
            if moment == "owners":
                return stage.stat().st_uid == NOBODY[0]
            return bool(json.loads(state.read_text())["phase"] == moment)
        return False

    command = ["homemgr", "convert", "--classic", "bob"]
    former = box.main_pid()
    with box.background(command) as running:
        while running.poll() is None and not is_reached():
            pass
        box.run(["systemctl", "kill", "-s", "KILL", "homemgrd.service"])
        running.wait(60)
    wait_for_service(box, after=former)
    again = box.run(command, check=False)
    assert again.code == 0 or "converted already" in again.output
    wait_for(lambda: bob.state() == "inactive", "bob has a home area")
    assert not [text for text in account_files(box).values() if "bob" in text]
    assert bob.ssh("cat work/file; ls many | wc -l").stdout.split() == ["mine", str(MORE)]
    bob.wait_until("inactive", 30)
    convert(box, "--undo")
    assert account_files(box) == before
    assert bob.ssh("cat work/file").stdout == "mine\n"
    idle(box)
