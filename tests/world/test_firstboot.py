"""The first boot of a machine: users and keys out of its credentials, by our unit and by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.record.signature import PrivateKey

from .conftest import World

if TYPE_CHECKING:
    from .box import Box

WORLDS = (World(), World(base="sid"))
PASSWORD = "correct horse"
UNIT = "homemgr-firstboot.service"
DROP_IN = """[Unit]
# Empty: at any boot, as a box has a machine id from the beginning.
ConditionFirstBoot=
[Service]
StandardInput=null
StandardOutput=journal
StandardError=journal
SetCredential=home.create.bob:{record}
"""


def record(**more: object) -> str:
    """What somebody writes by hand: a password as it is, and hardly anything else."""
    policy = {"enforcePasswordPolicy": False, "perMachine": [{"matchHostname": "nowhere"}]}
    return json.dumps({**policy, "secret": {"password": [PASSWORD]}, **more})


def opens(box: Box, user: str) -> bool:
    """Whether the password of the record opens the home."""
    words = ["homemgr", "authenticate", user, "--no-ask-password"]
    return box.run(words, env={"PASSWORD": PASSWORD}, check=False).code == 0


def test_credentials_of_a_unit_become_a_user_and_a_key(box: Box) -> None:
    pem = PrivateKey.generate().public.pem
    box.write("/root/friend.pem", pem)
    unit = ["systemd-run", "--quiet", "--wait", "--pipe"]
    passed = [
        *("-p", f"SetCredential=home.create.alice:{record(realName='Alice Example')}"),
        *("-p", "LoadCredential=home.add-signing-key.friend:/root/friend.pem"),
    ]
    for expected in ("is made of credential home.create.alice", "alice is there already"):
        done = box.run([*unit, *passed, "/opt/homemgr/bin/homemgr", "firstboot"])
        assert expected in done.output
    assert "Signing key friend.public is accepted already" in done.output
    assert opens(box, "alice")
    found = json.loads(box.run(["homectl", "inspect", "-j", "alice"]).stdout)
    assert found["realName"] == "Alice Example"
    assert pem in box.run(["homemgr", "get-signing-key", "friend.public"]).stdout


def test_our_unit_takes_those_of_the_machine_and_can_be_run_again(box: Box) -> None:
    enabled = box.systemctl("show", "-P", "WantedBy", UNIT).stdout.split()
    assert enabled == ["homemgrd.service"]
    # At its first start the unit found a machine that had booted before.
    assert box.systemctl("show", "-P", "ConditionResult", UNIT).stdout.strip() == "no"
    box.write(f"/run/systemd/system/{UNIT}.d/now.conf", DROP_IN.format(record=record()))
    box.write("/run/credentials/@system/home.create.carol", record(), 0o400)
    box.write("/run/credentials/@system/home.create.root", record(), 0o400)
    box.systemctl("daemon-reload")
    box.systemctl("start", UNIT)
    assert opens(box, "bob")
    assert opens(box, "carol")
    box.systemctl("restart", UNIT)
    said = box.journal(UNIT)
    for user in ("bob", "carol"):
        assert f"User {user} is made of credential home.create.{user}." in said
        assert f"User {user} is there already, left alone." in said
    assert "User root is there already, left alone." in said
    # There are users now: nobody is asked for one.
    assert "There is a regular user already" in said
