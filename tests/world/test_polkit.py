"""Who may do what: root always, others as polkit says, without polkit nobody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import escapes

from . import logins
from .users import MANAGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .box import Box
    from .users import User

RULES = "/etc/polkit-1/rules.d/10-world.rules"


def verbs(alice: User) -> dict[str, list[str]]:
    """Privileged verbs on somebody else's home."""
    return {
        "activate": ["homectl", "activate", alice.name],
        "deactivate": ["homectl", "deactivate", alice.name],
        "remove": ["homectl", "remove", alice.name],
        "update": ["homectl", "update", alice.name, "--real-name=Mallory"],
        "authenticate": ["homectl", "authenticate", alice.name],
        "create": ["homectl", "create", "mallory", "--storage=directory"],
    }


@pytest.mark.parametrize(
    "verb", ["activate", "deactivate", "remove", "update", "authenticate", "create"]
)
@pytest.mark.reference
def test_strangers_are_refused(box: Box, alice: User, verb: str) -> None:
    before = alice.record()
    env = {"PASSWORD": alice.password, "NEWPASSWORD": "pw"}
    refused = box.run(verbs(alice)[verb], user="nobody", env=env, check=False)
    assert refused.code == 1
    assert refused.stderr
    assert alice.state() == "inactive"
    assert alice.record() == before
    assert box.run(["homectl", "inspect", "mallory"], check=False).code == 1


def test_deactivate_all_is_for_root(box: Box, alice: User) -> None:
    with alice.active():
        refused = box.run([*MANAGER, "DeactivateAllHomes"], user="nobody", check=False)
        assert refused.code != 0
        assert "denied" in refused.stderr.lower()
        assert alice.state() == "active"


@pytest.mark.reference
def test_everybody_may_look_without_the_secrets(box: Box, alice: User) -> None:
    shown = box.run(["homectl", "inspect", "--json=short", alice.name], user="nobody").stdout
    assert alice.name in shown
    assert "hashedPassword" not in shown
    assert alice.name in box.run(["homectl", "list"], user="nobody").stdout


def test_owners_see_their_own_secrets_only(box: Box, new_user: Callable[..., User]) -> None:
    alice, bob = new_user(), new_user()
    own = box.run(["homectl", "inspect", "--json=short", alice.name], user=alice.name).stdout
    assert "hashedPassword" in own
    other = box.run(["homectl", "inspect", "--json=short", bob.name], user=alice.name).stdout
    assert "hashedPassword" not in other


def test_owners_change_their_own_password(box: Box, alice: User) -> None:
    env = {"PASSWORD": alice.password, "NEWPASSWORD": "my own choice"}
    box.run(["homectl", "passwd"], user=alice.name, env=env)
    alice.password = "my own choice"
    alice.homectl("authenticate")


def test_owners_cannot_give_themselves_groups(box: Box, alice: User) -> None:
    command = f"PASSWORD='{alice.password}' homectl update {alice.name} --member-of=sudo"
    refused = logins.ssh(box, alice.name, alice.password, command, check=False)
    assert refused.code == 1
    assert "sudo" not in box.run(["id", "-nG", alice.name]).stdout.split()
    alice.wait_until("inactive")


@pytest.fixture
def rule(box: Box) -> Iterator[Callable[[str], None]]:
    """Sets the one polkit rule of a test."""

    def say(condition: str) -> None:
        body = f"if ({condition}) return polkit.Result.YES;"
        box.write(RULES, f"polkit.addRule(function(action, subject) {{ {body} }});\n")
        box.systemctl("restart", "polkit.service")

    yield say
    box.path(RULES).unlink(missing_ok=True)
    box.systemctl("restart", "polkit.service")


def test_a_polkit_rule_opens_one_action(box: Box, alice: User, rule: Callable[[str], None]) -> None:
    rule('action.id == "org.freedesktop.home1.authenticate-home" && subject.user == "nobody"')
    env = {"PASSWORD": alice.password}
    box.run(verbs(alice)["authenticate"], user="nobody", env=env)
    refused = box.run(verbs(alice)["remove"], user="nobody", check=False)
    assert refused.code == 1
    assert alice.state() == "inactive"


def test_a_polkit_rule_sees_whose_home_it_is(
    box: Box, new_user: Callable[..., User], rule: Callable[[str], None]
) -> None:
    alice, bob = new_user(), new_user()
    rule(
        'action.id == "org.freedesktop.home1.remove-home" '
        f'&& action.lookup("username") == "{alice.name}"'
    )
    box.run(["homectl", "remove", alice.name], user="nobody")
    assert alice.state() == ""
    assert box.run(["homectl", "remove", bob.name], user="nobody", check=False).code == 1
    assert bob.state() == "inactive"


def test_without_polkit_only_root_passes(box: Box, alice: User) -> None:
    box.systemctl("mask", "--runtime", "--now", "polkit.service")
    try:
        env = {"PASSWORD": alice.password}
        refused = box.run(verbs(alice)["update"], user="nobody", env=env, check=False)
        assert refused.code == 1
        alice.homectl("update", "--real-name=Root")
        assert alice.record()["realName"] == "Root"
    finally:
        box.systemctl("unmask", "--runtime", "polkit.service")


#: Updates as they come, as texts in JSON, one in a line; answers with a line for each.
UPDATES = """
import json, sys
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
NAME, PATH = "org.freedesktop.home1", "/org/freedesktop/home1"
with Client("unix:path=/run/dbus/system_bus_socket") as client:
    for line in sys.stdin:
        target = (NAME, PATH, f"{NAME}.Manager", "UpdateHome")
        try:
            client.call(*target, "s", (json.loads(line),), timeout_s=60)
            print("done")
        except BusError as error:
            print(error.name.rpartition(".")[2])
"""


def test_owners_update_what_is_theirs_and_nothing_else(
    box: Box, alice: User, rule: Callable[[str], None]
) -> None:
    """polkit as it is, but for the one action that local sessions have."""
    rule(
        'action.id == "org.freedesktop.home1.update-home-by-owner" '
        f'&& subject.user == "{alice.name}" '
        f'&& action.lookup("username") == "{alice.name}"'
    )
    own = alice.record()
    tries = escapes.escapes(own, alice.password, box.machine_id)
    texts = [*tries.values(), escapes.free(own, alice.password)]
    program = ["/opt/homemgr/bin/python", "-c", UPDATES]
    lines = "".join(f"{json.dumps(text)}\n" for text in texts)
    answers = box.run(program, user=alice.name, stdin=lines).stdout.split()
    assert answers.pop() == "done"
    assert len(answers) == len(tries)
    assert [what for what, answer in zip(tries, answers, strict=True) if answer == "done"] == []
    new = alice.record()
    assert str(new.pop("location")).startswith("here ")
    for record in (own, new):
        for name in ("lastChangeUSec", "signature", "shell", "status", "privileged"):
            record.pop(name, None)
    assert new == own
