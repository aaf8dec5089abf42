"""Unmodified homectl, of Debian 12 (252) and of sid (262), does all its daily verbs with us."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from .conftest import World
from .users import MANAGER, NOBODY, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from .box import Box

WORLDS = (World(), World(base="sid"))
HOME1, DBUS = "org.freedesktop.home1", "org.freedesktop.DBus.Error"


@pytest.mark.reference
def test_a_new_home_is_listed_as_inactive(box: Box, alice: User) -> None:
    homes = json.loads(box.run(["homectl", "list", "--json=short"]).stdout)
    mine = next(home for home in homes if home["name"] == alice.name)
    assert mine["state"] == "inactive"
    assert mine["uid"] == alice.uid
    assert 60001 <= mine["uid"] <= 60513
    assert alice.home in box.run(["homectl", "list", "--no-legend"]).stdout


@pytest.mark.reference
def test_inspect_shows_the_record(box: Box, alice: User) -> None:
    record = alice.record()
    assert record["userName"] == alice.name
    assert record["disposition"] == "regular"
    assert record["privileged"]["hashedPassword"]
    binding = record["binding"][box.machine_id]
    assert (binding["uid"], binding["gid"]) == (alice.uid, alice.uid)
    assert binding["storage"] == "directory"
    assert record["status"][box.machine_id]["service"] == "io.systemd.Home"
    assert record["signature"]


@pytest.mark.reference
def test_inspect_speaks_to_people(box: Box, alice: User) -> None:
    shown = box.run(["homectl", "inspect", alice.name]).stdout
    assert f"User name: {alice.name}" in shown
    assert "State: inactive" in shown


def test_inspect_exports_an_identity_without_this_machine(box: Box, alice: User) -> None:
    stripped = json.loads(box.run(["homectl", "inspect", "-E", alice.name]).stdout)
    assert "binding" not in stripped
    assert "status" not in stripped
    assert stripped["signature"]
    minimal = json.loads(box.run(["homectl", "inspect", "-EE", alice.name]).stdout)
    assert "signature" not in minimal


def test_every_file_of_a_new_home_belongs_to_nobody(box: Box, alice: User) -> None:
    owners = alice.owners_on_disk()
    assert set(owners) == {NOBODY}
    assert any(path.endswith("/.identity") for path in owners[NOBODY])


def test_homes_at_rest_lie_behind_a_directory_of_root(box: Box, alice: User) -> None:
    assert alice.image == f"/home/.homemgr/{alice.name}.homedir"
    status = box.path("/home/.homemgr").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o700)
    refused = box.run(["ls", "-la", alice.image], user="nobody", check=False)
    assert refused.code != 0


@pytest.mark.reference
def test_activate_mounts_the_home_for_its_user(box: Box, alice: User) -> None:
    alice.homectl("activate")
    assert alice.state() == "active"
    options = box.mounts()[alice.home].split(",")
    assert {"nosuid", "nodev", "idmapped"} <= set(options)
    status = box.path(alice.home).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (alice.uid, alice.uid, 0o700)
    assert box.path(f"{alice.home}/.bashrc").stat().st_uid == alice.uid

    alice.homectl("deactivate")
    assert alice.state() == "inactive"
    assert not alice.is_mounted()


@pytest.mark.reference
def test_activate_refuses_a_wrong_password(box: Box, alice: User) -> None:
    alice.homectl_refuses("activate", "wrong")
    assert alice.state() == "inactive"


@pytest.mark.reference
def test_authenticate_leaves_an_inactive_home_inactive(box: Box, alice: User) -> None:
    alice.homectl("authenticate")
    assert alice.state() == "inactive"
    alice.homectl_refuses("authenticate", "wrong")
    assert alice.state() == "inactive"


@pytest.mark.reference
def test_with_runs_a_command_in_the_mounted_home(box: Box, alice: User) -> None:
    seen = alice.homectl("with", "--", "sh", "-c", "pwd; stat -c %u .bashrc; exit 7", check=False)
    assert seen.code == 7
    assert seen.stdout.split() == [alice.home, str(alice.uid)]
    alice.wait_until("inactive")


@pytest.mark.reference
def test_passwd_replaces_the_password(box: Box, alice: User) -> None:
    old = alice.password
    alice.homectl("passwd", new_password="a better word")
    alice.password = "a better word"
    alice.homectl("authenticate")
    alice.homectl_refuses("authenticate", old)
    alice.homectl("activate")
    alice.homectl("deactivate")


def test_passwd_with_a_wrong_password_changes_nothing(box: Box, alice: User) -> None:
    alice.homectl_refuses("passwd", "wrong", new_password="whatever")
    alice.homectl("authenticate")


@pytest.mark.reference
def test_update_changes_the_record_in_both_places(box: Box, alice: User) -> None:
    alice.homectl("update", "--real-name=Alice Ångström", "--email-address=alice@example.org")
    record = alice.record()
    assert record["realName"] == "Alice Ångström"
    embedded = json.loads(box.path(f"{alice.image}/.identity").read_text())
    assert embedded["emailAddress"] == "alice@example.org"
    assert "Alice Ångström" in box.run(["getent", "passwd", alice.name]).stdout


def test_update_of_an_active_home_leaves_it_active(box: Box, alice: User) -> None:
    with alice.active():
        alice.homectl("update", "--real-name=Busy")
        assert alice.state() == "active"
    assert set(alice.owners_on_disk()) == {NOBODY}


@pytest.mark.reference
def test_remove_takes_files_and_record(box: Box, alice: User) -> None:
    image = alice.image
    alice.homectl("remove")
    assert alice.state() == ""
    assert not box.path(image).exists()
    assert not list(box.path("/var/lib/systemd/home").glob(f"{alice.name}*"))
    assert box.run(["getent", "passwd", alice.name], check=False).code == 2
    assert box.run(["homectl", "inspect", alice.name], check=False).code == 1


def test_an_active_home_is_not_removed(box: Box, alice: User) -> None:
    with alice.active():
        refused = alice.homectl("remove", check=False)
        assert refused.code == 1
        assert alice.is_mounted()
    alice.homectl("activate")
    alice.homectl("deactivate")


def test_deactivate_all_takes_every_home(box: Box, new_user: Callable[..., User]) -> None:
    people = [new_user(), new_user()]
    for user in people:
        user.homectl("activate")
    box.run(["homectl", "deactivate-all"])
    assert [user.state() for user in people] == ["inactive", "inactive"]


def test_deactivate_of_a_busy_home_names_who_holds_it(box: Box, alice: User) -> None:
    alice.homectl("activate")
    with box.background(["sh", "-c", f"cd {alice.home} && echo in && exec sleep 60"]) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "in\n"
        # One plain call: homectl's deactivate would go on asking for half a minute.
        refused = box.run([*MANAGER, "DeactivateHome", "s", alice.name], check=False)
        assert refused.code != 0
        assert "sleep" in refused.stderr
        assert alice.state() in {"active", "lingering"}
        assert alice.is_mounted()
    # A busy home is tried again until it can go.
    alice.wait_until("inactive", 40)


@pytest.mark.reference
def test_what_a_directory_cannot_do_is_answered_by_the_same_names(box: Box, alice: User) -> None:
    secret = json.dumps({"password": [alice.password]})
    with alice.active():
        for member, arguments, name in (
            ("LockHome", [f"string:{alice.name}"], f"{DBUS}.NotSupported"),
            ("UnlockHome", [f"string:{alice.name}", f"string:{secret}"], f"{HOME1}.HomeNotLocked"),
            (
                "ResizeHome",
                [f"string:{alice.name}", f"uint64:{1 << 30}", f"string:{secret}"],
                f"{DBUS}.NotSupported",
            ),
            ("Rebalance", [], f"{HOME1}.RebalanceNotNeeded"),
        ):
            to = ["--system", "--print-reply", f"--dest={HOME1}", "/org/freedesktop/home1"]
            argv = ["dbus-send", *to, f"{HOME1}.Manager.{member}", *arguments]
            assert f"Error {name}:" in box.run(argv, check=False).stderr, member
        assert alice.state() == "active"


@pytest.mark.reference
def test_a_machine_with_nothing_to_lock_may_sleep(box: Box, alice: User) -> None:
    with alice.active():
        # What systemd-sleep calls before it suspends; a failure would be in its log.
        box.run(["homectl", "lock-all"])
        assert alice.state() == "active"
    box.run(["homectl", "rebalance"])
    assert alice.homectl("resize", "1G", check=False).code == 1


def test_an_image_gets_another_size_while_it_is_used(box: Box) -> None:
    ivan = User(box, "ivan", "pw")
    make = ["homemgr", "create", ivan.name, "--storage=image", "--fs-type=btrfs"]
    make += ["--disk-size=300M", "--luks-discard=yes", "--enforce-password-policy=no"]
    box.run(make, env={"NEWPASSWORD": ivan.password})
    room = ["stat", "-f", "--format=%b", ivan.home]
    with ivan.active():
        before = int(box.run(room).stdout)
        ivan.homectl("resize", "340M")
        assert int(box.run(room).stdout) > before
        shown = box.run(["homectl", "inspect", ivan.name]).stdout
        assert re.search(r"Disk Size: 340(\.0)?M", shown)
        for label in ("Disk Usage", "Disk Free", "Disk Floor", "Disk Ceiling"):
            assert f"{label}: " in shown, label
    ivan.homectl("update", "--disk-size=320M")
    assert int(box.run(["stat", "--format=%s", ivan.image]).stdout) == 320 << 20
    assert ivan.record()["perMachine"][-1]["diskSize"] == 320 << 20
    (row,) = json.loads(box.run(["homemgr", "usage", "--json=short", ivan.name]).stdout)
    assert row["counted_by"] == "image"
    ivan.homectl("remove")


@pytest.mark.parametrize("name", ["root", "nobody", "no/slash", "-dash", "a" * 300, "1234"])
def test_names_that_are_not_allowed_are_refused(box: Box, name: str) -> None:
    argv = ["homectl", "create", "--storage=directory", "--enforce-password-policy=no", "--", name]
    refused = box.run(argv, env={"NEWPASSWORD": "pw"}, check=False)
    assert refused.code == 1
    assert refused.stderr


def test_a_name_is_given_once(box: Box, alice: User) -> None:
    argv = ["homectl", "create", alice.name, "--storage=directory", "--enforce-password-policy=no"]
    refused = box.run(argv, env={"NEWPASSWORD": "pw"}, check=False)
    assert refused.code == 1
    assert alice.name in refused.stderr
    alice.homectl("authenticate")


def test_create_refuses_the_uid_of_another(box: Box, alice: User) -> None:
    argv = ["homectl", "create", "mallory", f"--uid={alice.uid}", "--storage=directory"]
    refused = box.run(
        [*argv, "--enforce-password-policy=no"], env={"NEWPASSWORD": "pw"}, check=False
    )
    assert refused.code == 1
    assert box.run(["homectl", "inspect", "mallory"], check=False).code == 1


@pytest.mark.parametrize("verb", ["activate", "deactivate", "inspect", "remove", "authenticate"])
def test_an_unknown_user_is_named_in_the_answer(box: Box, verb: str) -> None:
    refused = box.run(["homectl", verb, "nosuchuser"], check=False)
    assert refused.code == 1
    assert "nosuchuser" in refused.stderr


@pytest.mark.parametrize(("verb", "arguments"), [("lock", ()), ("resize", ("200M",))])
def test_what_is_not_built_yet_says_so(
    box: Box, alice: User, verb: str, arguments: tuple[str, ...]
) -> None:
    with alice.active():
        refused = alice.homectl(verb, *arguments, check=False)
        assert refused.code == 1
        assert refused.stderr
        assert alice.state() == "active"


def test_other_storages_are_refused_and_leave_nothing(box: Box) -> None:
    argv = ["homectl", "create", "mallory", "--storage=luks", "--enforce-password-policy=no"]
    refused = box.run(argv, env={"NEWPASSWORD": "pw"}, check=False)
    assert refused.code == 1
    assert box.run(["homectl", "inspect", "mallory"], check=False).code == 1
    assert not list(box.path("/home").rglob("*mallory*"))
