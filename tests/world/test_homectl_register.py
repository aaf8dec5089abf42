"""Unmodified homectl of sid (262): users and signing keys made known, and all of its words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from homemgr.cli.verb_table import COMMON, VERBS, load
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


#: What homectl takes that is not wanted here, and why.
EXCEPTIONS: dict[str, str] = {}

#: A value for every option of homectl that sets fields without devices and files; as many as
#: its --help lists of them.
SAMPLES = {
    "real-name": "A B", "realm": "example.com", "alias": "ab,ba", "email-address": "a@b.example",
    "location": "here", "birth-date": "1980-02-03", "icon-name": "face", "home-dir": "/home/ab",
    "uid": "60123", "member-of": "audio,video", "capability-bounding-set": "CAP_KILL CAP_CHOWN",
    "capability-ambient-set": "CAP_KILL", "access-mode": "711", "umask": "027", "skel": "/etc/skel",
    "shell": "/bin/sh", "setenv": "A=b", "timezone": "Europe/Berlin", "language": "C.UTF-8",
    "default-area": "work", "ssh-authorized-keys": "ssh-ed25519 AAAA a", "locked": "no",
    "not-before": "@100", "not-after": "@1900000000", "rate-limit-interval": "90s",
    "rate-limit-burst": "7", "password-hint": "hint", "enforce-password-policy": "no",
    "password-change-now": "no", "password-change-min": "1d", "password-change-max": "1y",
    "password-change-warn": "2w", "password-change-inactive": "3w", "disk-size": "1G",
    "nice": "3", "rlimit": "NOFILE=10:20", "tasks-max": "99", "memory-high": "1G",
    "memory-max": "2G", "cpu-weight": "50", "io-weight": "60", "tmp-limit": "10%",
    "dev-shm-limit": "1G", "storage": "directory", "image-path": "/home/x.homedir",
    "drop-caches": "yes", "fs-type": "ext4", "luks-discard": "no", "luks-offline-discard": "yes",
    "luks-cipher": "aes", "luks-cipher-mode": "xts-plain64", "luks-volume-key-size": "256",
    "luks-pbkdf-type": "pbkdf2", "luks-pbkdf-hash-algorithm": "sha512",
    "luks-pbkdf-time-cost": "1s", "luks-pbkdf-memory-cost": "64M",
    "luks-pbkdf-parallel-threads": "2", "luks-sector-size": "4096",
    "luks-extra-mount-options": "noatime", "auto-resize-mode": "grow", "rebalance-weight": "5",
    "nosuid": "yes", "nodev": "yes", "noexec": "no", "cifs-domain": "D", "cifs-user-name": "u",
    "cifs-service": "//h/s", "cifs-extra-mount-options": "vers=3", "stop-delay": "5s",
    "kill-processes": "no", "auto-login": "no", "session-launcher": "x", "session-type": "tty",
}  # fmt: skip
#: Options that set fields by what is in a file, on a token, or drawn by lot.
BY_OTHER_MEANS = {
    *("pkcs11-token-uri", "fido2-device", "fido2-with-client-pin", "fido2-with-user-presence"),
    *("fido2-with-user-verification", "recovery-key", "recovery-key-file"),
    *("blob", "avatar", "login-background"),
}


#: Fields that --match= moves with one of the two only. homectl leaves those of the first row where
#: they are; those of the second it moves to where systemd-homed refuses them.
MOVED_BY_ONE = {
    *("accessMode", "uid", "preferredLanguage"),
    *("realName", "emailAddress"),
}


def options_in(help_text: str) -> tuple[set[str], set[str]]:
    """The long options and the letters that a help text lists."""
    names = set(re.findall(r"^ +(?:-\w )? *--([a-z0-9-]+)", help_text, re.MULTILINE))
    return names, set(re.findall(r"^ +-(\w)", help_text, re.MULTILINE))


def test_every_word_of_homectl_is_known(box: Box) -> None:
    text = homectl(box, "--help", "--no-pager").stdout
    names, letters = options_in(text)
    tables = [option for verb in VERBS.values() for option in (*COMMON, *load(verb.module).OPTIONS)]
    assert names - {option.name for option in tables} == set(EXCEPTIONS)
    assert letters <= set("".join(option.short for option in tables))
    # Of homectl's own part of the help, before the properties of records.
    commands = text.partition("\nOptions:")[0]
    verbs = set(re.findall(r"^  \[?([a-z]+(?:-[a-z]+)*)\]?", commands, re.MULTILINE))
    assert len(verbs) > 20
    assert verbs <= set(VERBS)
    properties = options_in(text.partition("General User Record Properties:")[2])[0]
    assert properties == set(SAMPLES) | BY_OTHER_MEANS


@pytest.mark.parametrize("match", ["auto", "any", "this", "other"])
def test_every_option_makes_the_record_that_homectl_makes(box: Box, match: str) -> None:
    options = [f"--{name}={value}" for name, value in SAMPLES.items()]
    dry = {"SYSTEMD_HOME_DRY_RUN": "1", "NEWPASSWORD": "correct horse"}
    theirs, ours = (
        box.run([program, "create", "x", f"--match={match}", *options], env=dry).output
        for program in ("homectl", "homemgr")
    )
    left_out = MOVED_BY_ONE if match in ("this", "other") else set()
    assert _comparable(ours, left_out) == _comparable(theirs, left_out)


def _comparable(said: str, left_out: set[str]) -> dict[str, Any]:
    """A record without what differs each time; entries for machines by what they match."""
    record: dict[str, Any] = json.loads(said[said.index("{") :])
    for name in ("secret", "lastChangeUSec", "lastPasswordChangeUSec"):
        record.pop(name, None)
    del record["privileged"]["hashedPassword"]
    record["perMachine"] = {
        next(name for name in entry if name.startswith("match")): entry
        for entry in record["perMachine"]
    }
    for section in (record, *record["perMachine"].values()):
        for name in left_out:
            section.pop(name, None)
    return record
