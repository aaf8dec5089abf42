"""Accounts of homes are visible to unmodified getent, id, userdbctl and sshd, mounted or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .conftest import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from .box import Box
    from .users import User

WORLDS = (World(), World(base="sid"))


def userdb(box: Box, *arguments: str, user: str | None = None) -> dict[str, object]:
    """One record of userdbctl."""
    shown = box.run(["userdbctl", "--json=short", *arguments], user=user)
    record: dict[str, object] = json.loads(shown.stdout)
    return record


def test_getent_knows_the_account_and_the_real_home(box: Box, alice: User) -> None:
    by_name = box.run(["getent", "passwd", alice.name]).stdout
    name, password, uid, gid, _, home, shell = by_name.strip().split(":")
    assert (name, password, home) == (alice.name, "x", alice.home)
    assert uid == gid
    # Newer systemd has a shell that asks for the password and then runs the real one.
    assert shell in {"/bin/bash", "/usr/bin/systemd-home-fallback-shell"}
    assert box.run(["getent", "passwd", uid]).stdout == by_name
    assert box.run(["getent", "passwd", alice.name], user="nobody").stdout == by_name
    with alice.active():
        active = box.run(["getent", "passwd", alice.name]).stdout.strip().split(":")
        assert active == [name, "x", uid, gid, alice.name, alice.home, "/bin/bash"]


@pytest.mark.reference
def test_the_group_of_an_account_is_its_own(box: Box, alice: User) -> None:
    group = box.run(["getent", "group", alice.name]).stdout.strip()
    name, _, gid, _ = group.split(":")
    assert (name, int(gid)) == (alice.name, alice.uid)
    assert box.run(["getent", "group", gid]).stdout.strip() == group
    expected = f"uid={gid}({name}) gid={gid}({name}) groups={gid}({name})\n"
    assert box.run(["id", alice.name]).stdout == expected


@pytest.mark.reference
def test_further_groups_are_members_both_ways(box: Box, new_user: Callable[..., User]) -> None:
    user = new_user("--member-of=games,audio")
    assert set(box.run(["id", "-nG", user.name]).stdout.split()) == {user.name, "games", "audio"}
    members = box.run(["userdbctl", "--no-legend", "users-in-group", "games"]).stdout
    assert user.name in members.split()
    groups = box.run(["userdbctl", "--no-legend", "groups-of-user", user.name]).stdout.split()
    assert {"games", "audio", user.name} <= set(groups)


def test_shadow_is_for_root(box: Box, alice: User) -> None:
    assert box.run(["getent", "shadow", alice.name]).stdout.split(":")[1].startswith("$")
    for_others = box.run(["getent", "shadow", alice.name], user="nobody", check=False)
    assert "$" not in for_others.stdout


@pytest.mark.reference
def test_secrets_of_a_record_are_for_root_and_the_owner(box: Box, alice: User) -> None:
    assert "privileged" in userdb(box, "user", alice.name)
    assert "privileged" in userdb(box, "user", alice.name, user=alice.name)
    assert "privileged" not in userdb(box, "user", alice.name, user="nobody")


@pytest.mark.reference
def test_userdbctl_shows_whose_record_it_is(box: Box, alice: User) -> None:
    record = userdb(box, "user", alice.name)
    status = record["status"]
    assert isinstance(status, dict)
    assert status[box.machine_id]["service"] == "io.systemd.Home"
    assert record["userName"] == alice.name
    shown = box.run(["userdbctl", "user", alice.name]).stdout
    assert alice.home in shown
    assert "io.systemd.Home" in shown
    group = userdb(box, "group", alice.name)
    assert group["groupName"] == alice.name


def test_the_service_is_listed_and_answers(box: Box, alice: User) -> None:
    services = box.run(["userdbctl", "services"]).stdout
    line = next(line for line in services.splitlines() if "io.systemd.Home" in line)
    assert "yes" in line


@pytest.mark.reference
def test_keys_are_there_while_the_home_is_not(box: Box, alice: User) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk1 somebody"
    alice.homectl("update", f"--ssh-authorized-keys={key}")
    assert alice.state() == "inactive"
    shown = box.run(["userdbctl", "ssh-authorized-keys", alice.name]).stdout
    assert shown.splitlines() == [key]


@pytest.mark.reference
def test_everybody_is_enumerated(box: Box, new_user: Callable[..., User]) -> None:
    people = {new_user().name, new_user().name, new_user().name}
    listed = {line.split(":")[0] for line in box.run(["getent", "passwd"]).stdout.splitlines()}
    assert people <= listed
    shown = box.run(["userdbctl", "--output=classic", "user"]).stdout
    assert people <= {line.split(":")[0] for line in shown.splitlines()}


def test_who_does_not_exist_is_not_found(box: Box) -> None:
    assert box.run(["getent", "passwd", "nosuchuser"], check=False).code == 2
    assert box.run(["id", "nosuchuser"], check=False).code == 1
    assert box.run(["userdbctl", "user", "nosuchuser"], check=False).code != 0


def test_lookups_do_not_wait_for_work_on_homes(box: Box, alice: User) -> None:
    """A blocked user database would delay every look-up on the machine."""
    with box.background(["homectl", "create", "slow", "--storage=directory"]):
        for _ in range(20):
            box.run(["getent", "passwd", alice.name], timeout=5)


@pytest.mark.base("sid")
def test_varlinkctl_understands_the_service(box: Box, alice: User) -> None:
    socket = "/run/systemd/userdb/io.systemd.Home"
    shown = box.run(["varlinkctl", "introspect", socket, "io.systemd.UserDatabase"]).stdout
    assert "GetMemberships" in shown
    asked = json.dumps({"userName": alice.name, "service": "io.systemd.Home"})
    method = "io.systemd.UserDatabase.GetUserRecord"
    answer = json.loads(box.run(["varlinkctl", "call", "-j", socket, method, asked]).stdout)
    assert answer["record"]["userName"] == alice.name
