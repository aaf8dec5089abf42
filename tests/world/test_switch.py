"""homemgr takes the place of systemd-homed on a running machine and gives it back; both ways the
homes of the one open with the other."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from . import logins, users
from .box import Box
from .conftest import World
from .hands import give_back, take_over
from .users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from .users import User

# systemd-homed runs, homemgr is installed but not set up.
WORLDS = (World("both"), World("both", base="sid"))
WATCHED = ("/etc", "/usr/share/polkit-1", "/usr/share/pam-configs", "/usr/local")
# Written anew by whatever runs: not configuration.
VOLATILE = ("passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock", "ld.so.cache", "__pycache__")


def fingerprint(box: Box) -> dict[str, str]:
    """Every file and link of the places that setup touches."""
    found = {}
    for place in WATCHED:
        for path in users.walk(box.path(place)):
            name = str(path).removeprefix(str(box.path("/")))
            if any(word in name for word in VOLATILE):
                continue
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differing(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of files that came, went or changed."""
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def service_state(box: Box, unit: str) -> str:
    """active, inactive, failed."""
    return box.systemctl("is-active", unit, check=False).stdout.strip()


def test_the_service_changes_hands(homed: Box) -> None:
    assert service_state(homed, "systemd-homed.service") == "active"
    take_over(homed)
    assert service_state(homed, "systemd-homed.service") != "active"
    assert service_state(homed, "homemgrd.service") == "active"
    owner = homed.run(["busctl", "status", "org.freedesktop.home1"]).stdout
    assert "homemgrd" in owner
    assert "failed" not in homed.systemctl("--failed", "--no-legend").stdout
    give_back(homed)
    assert service_state(homed, "homemgrd.service") != "active"
    assert homed.run(["homectl", "list"]).code == 0
    owner = homed.run(["busctl", "status", "org.freedesktop.home1"]).stdout
    assert "systemd-homed" in owner


def test_a_setup_taken_back_leaves_the_files_as_they_were(homed: Box) -> None:
    before = fingerprint(homed)
    take_over(homed)
    changed = fingerprint(homed)
    assert differing(before, changed) != []
    homed.run(["homemgr", "setup"])
    assert differing(changed, fingerprint(homed)) == []
    give_back(homed)
    assert differing(before, fingerprint(homed)) == []
    assert "Nothing to do" in homed.run(["homemgr", "unsetup"]).output


def test_homes_of_systemd_homed_open_where_they_are(
    homed: Box, new_user: Callable[..., User]
) -> None:
    bob = new_user()
    with bob.active():
        homed.path(f"{bob.home}/letter").write_text("from-homed\n")
        homed.run(["chown", f"{bob.name}:", f"{bob.home}/letter"])
    image, uid, record = bob.image, bob.uid, bob.record()
    take_over(homed)
    assert bob.state() == "inactive"
    assert (bob.image, bob.uid) == (image, uid)
    assert bob.record()["signature"] == record["signature"]
    seen = bob.ssh("cat letter; stat -c %u letter .; echo reply >reply")
    assert seen.stdout.split() == ["from-homed", str(uid), str(uid)]
    bob.wait_until("inactive")
    bob.homectl("update", "--real-name=Changed Hands")
    old = bob.password
    bob.homectl("passwd", new_password="new under homemgr")
    bob.password = "new under homemgr"
    give_back(homed)
    bob.homectl_refuses("authenticate", old)
    with bob.active():
        assert homed.read(f"{bob.home}/reply") == "reply\n"
        assert homed.path(f"{bob.home}/reply").stat().st_uid == uid
    assert bob.record()["realName"] == "Changed Hands"


def test_homes_of_homemgr_open_with_systemd_homed(
    homed: Box, new_user: Callable[..., User]
) -> None:
    take_over(homed)
    carol = new_user()
    carol.ssh("echo mine >mine")
    carol.wait_until("inactive")
    assert set(carol.owners_on_disk()) == {NOBODY}
    image, uid = carol.image, carol.uid
    give_back(homed)
    assert carol.state() == "inactive"
    assert (carol.image, carol.uid) == (image, uid)
    with carol.active():
        assert homed.read(f"{carol.home}/mine") == "mine\n"
        assert homed.path(f"{carol.home}/mine").stat().st_uid == uid
        homed.run(["touch", f"{carol.home}/more"], user=carol.name)
    assert set(carol.owners_on_disk()) == {NOBODY}
    carol.homectl("update", "--real-name=Back Again")
    take_over(homed)
    assert carol.record()["realName"] == "Back Again"
    carol.ssh("cat more mine")
    carol.wait_until("inactive")


def test_a_plain_image_waits_while_systemd_homed_serves(homed: Box, nothing_left: None) -> None:
    take_over(homed)
    dora = users.User(homed, "dora", "open sesame dora")
    # The unmodified homectl knows no such storage, but passes on what it does not know.
    record = {"userName": "dora", "org.homemgr.storage": "image", "diskSize": 40 << 20}
    homed.path("/root/dora.json").write_text(json.dumps(record))
    create = ["homectl", "create", "--identity=/root/dora.json", "--enforce-password-policy=no"]
    homed.run(create, env={"NEWPASSWORD": dora.password})
    assert dora.image.endswith("/dora.homeimage")
    uid = dora.uid
    seen = dora.ssh(
        "echo mine >mine; stat -c %u mine; grep -c ' /home/dora ext4 .*nosuid' /proc/mounts"
    )
    assert seen.stdout.split() == [str(uid), "1"]
    dora.wait_until("inactive")
    for shown in (["homectl", "inspect", "dora"], ["userdbctl", "user", "dora"]):
        result = homed.run(shown)
        assert re.search(r"Storage: directory \(no encryption\)", result.stdout)
        assert f"Image Path: {dora.image}" in result.stdout
    before = hashlib.sha256(homed.path(dora.image).read_bytes()).digest()
    give_back(homed)
    refused = dora.homectl("activate", check=False)
    assert (refused.code, "Not a directory" in refused.output) == (1, True)
    assert (dora.uid, dora.state()) == (uid, "inactive")
    assert before == hashlib.sha256(homed.path(dora.image).read_bytes()).digest()
    take_over(homed)
    assert dora.ssh("cat mine").stdout == "mine\n"
    dora.wait_until("inactive")
    users.remove(dora)


def test_a_running_command_outlives_the_change_of_hands(
    homed: Box, new_user: Callable[..., User]
) -> None:
    frank = new_user()
    argv = ["homectl", "with", frank.name, "--", "sh", "-c", "echo in; read word; echo $word >end"]
    with homed.background(argv, env={"PASSWORD": frank.password}) as command:
        assert command.stdout is not None
        assert command.stdin is not None
        assert command.stdout.readline() == "in\n"
        take_over(homed)
        assert frank.is_mounted()
        assert frank.state() == "active"
        command.stdin.write("written\n")
        command.stdin.flush()
        assert command.wait(30) == 0
    homed.run(["homectl", "deactivate", frank.name], check=False)
    frank.wait_until("inactive")
    assert homed.read(f"{frank.image}/end") == "written\n"


# Of 252 not every session has a home to begin with.
@pytest.mark.base("sid")
def test_a_session_outlives_the_change_of_hands(homed: Box, new_user: Callable[..., User]) -> None:
    dave = new_user()
    with logins.ssh_on_terminal(homed, dave.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, dave.password)
        terminal.expect(r"[$] $")
        take_over(homed)
        assert dave.is_mounted()
        assert dave.state() == "active"
        terminal.send("echo still here >note; cat note")
        terminal.expect("still here")
        terminal.send("exit")
        terminal.finish()
    homed.run(["homectl", "deactivate", dave.name], check=False)
    dave.wait_until("inactive")
    assert not dave.is_mounted()


def test_a_removed_home_of_systemd_homed_is_gone(homed: Box, new_user: Callable[..., User]) -> None:
    erin = new_user()
    image = erin.image
    take_over(homed)
    erin.homectl("remove")
    assert not homed.path(image).exists()
    give_back(homed)
    assert erin.state() == ""
