"""Unmodified homectl of sid (262) makes users and signing keys known, as with systemd-homed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign

from .conftest import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .box import Box, Result
    from .users import User

WORLDS = (World(base="sid"),)
LOCAL_KEY = "/var/lib/systemd/home/local.public"


def homectl(box: Box, *words: str, stdin: str = "", check: bool = True) -> Result:
    """Homectl WORDS."""
    return box.run(["homectl", *words], stdin=stdin, check=check)


def known_keys(box: Box) -> dict[str, str]:
    """The signing keys that homectl lists, by name."""
    listed = homectl(box, "list-signing-keys", "--json=short").stdout
    return {key["name"]: key["key"] for key in json.loads(listed)}


def is_known(box: Box, name: str) -> bool:
    """Whether the name service has such a user."""
    return box.run(["getent", "passwd", name], check=False).code == 0


@pytest.fixture
def friend(box: Box) -> Iterator[PrivateKey]:
    """The key of another machine, accepted here for the length of a test."""
    key = PrivateKey.generate()
    homectl(box, "add-signing-key", "--key-name=friend.public", stdin=key.public.pem)
    yield key
    homectl(box, "remove-signing-key", "friend.public", check=False)


@pytest.fixture
def elsewhere(box: Box) -> Iterator[str]:
    """A directory of the file system of the homes where nobody looks for any."""
    path = "/home/.elsewhere"
    box.run(["mkdir", "--mode=700", path])
    yield path
    box.run(["rm", "-r", path])


@pytest.mark.reference
def test_keys_come_and_go(box: Box, friend: PrivateKey) -> None:
    own = box.read(LOCAL_KEY)
    assert known_keys(box) == {"friend.public": friend.public.pem, "local.public": own}
    assert homectl(box, "get-signing-key").stdout == own
    assert homectl(box, "get-signing-key", "friend.public").stdout == friend.public.pem
    assert "friend.public" in homectl(box, "list-signing-keys").stdout
    again = ("add-signing-key", "--key-name=friend.public")
    refused = homectl(box, *again, stdin=friend.public.pem, check=False)
    assert refused.code == 1
    assert "friend.public" in refused.stderr
    homectl(box, "remove-signing-key", "friend.public")
    assert known_keys(box) == {"local.public": own}
    for verb in ("get-signing-key", "remove-signing-key"):
        refused = homectl(box, verb, "friend.public", check=False)
        assert refused.code == 1
        assert "friend.public" in refused.stderr
    assert homectl(box, "remove-signing-key", "local.public", check=False).code == 1
    assert known_keys(box) == {"local.public": own}


@pytest.mark.reference
def test_a_record_is_registered_while_its_signer_is_accepted(box: Box, friend: PrivateKey) -> None:
    data = {"userName": "paula", "disposition": "regular", "uid": 60400, "lastChangeUSec": 5}
    text = json.dumps(sign(UserRecord(data), friend).data)
    homectl(box, "register", stdin=text)
    listed = json.loads(homectl(box, "list", "--json=short").stdout)
    assert [(home["name"], home["state"]) for home in listed] == [("paula", "absent")]
    assert box.run(["id", "-u", "paula"]).stdout == "60400\n"
    assert homectl(box, "register", stdin=text, check=False).code == 1
    homectl(box, "unregister", "paula")
    assert not is_known(box, "paula")
    homectl(box, "remove-signing-key", "friend.public")
    refused = homectl(box, "register", stdin=text, check=False)
    assert refused.code == 1
    assert "sign" in refused.stderr
    assert not is_known(box, "paula")


@pytest.mark.reference
def test_a_home_that_was_taken_elsewhere_is_adopted(box: Box, elsewhere: str, alice: User) -> None:
    uid, image, moved = alice.uid, alice.image, f"{elsewhere}/{alice.name}.homedir"
    homectl(box, "unregister", alice.name)
    box.run(["mv", image, moved])
    alice.wait_until("")
    assert not is_known(box, alice.name)
    homectl(box, "adopt", moved)
    assert alice.state() == "unfixated"
    with alice.active():
        assert box.path(f"{alice.home}/.bashrc").stat().st_uid == uid
        assert (alice.image, alice.uid) == (moved, uid)
    alice.homectl("passwd", new_password="elsewhere")
    alice.password = "elsewhere"
    alice.homectl("authenticate")
    missing = homectl(box, "adopt", f"{elsewhere}/nobody.homedir", check=False)
    assert missing.code == 1


def test_the_files_of_a_registered_user_are_adopted_later(
    box: Box, elsewhere: str, alice: User
) -> None:
    """Of systemd-homed 262 such a home stays absent."""
    record = homectl(box, "inspect", "-E", alice.name).stdout
    moved = f"{elsewhere}/{alice.name}.homedir"
    image = alice.image
    homectl(box, "unregister", alice.name)
    box.run(["mv", image, moved])
    alice.wait_until("")
    homectl(box, "register", stdin=record)
    assert alice.state() == "absent"
    homectl(box, "adopt", moved)
    with alice.active():
        assert alice.image == moved
