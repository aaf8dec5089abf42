"""Damaged records: each copy comes back from the other, and what was damaged is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from homemgr.record import jsontext
from tests.service import people
from tests.service.people import PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, short

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "empty object": lambda text: b"{}",
    "truncated": lambda text: text[: len(text) // 2],
    "not text": lambda text: os.urandom(len(text)),
    "another uid": lambda text: text.replace(b"regular", b"system!"),
    "unsigned": lambda text: text.replace(b'"signature"', b'"signatore"'),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_record_in_the_home_comes_back_from_the_host_copy(service: Service, what: str) -> None:
    name = f"anna{list(DAMAGE).index(what)}"
    service.create(name)
    identity = service.site.base / f"{name}.homedir" / ".identity"
    good = identity.read_bytes()
    damaged = DAMAGE[what](good)
    identity.write_bytes(damaged)
    assert service.error("ActivateHome", "ss", name, secret(WRONG_PASSWORD)) == "BadPassword"
    assert identity.read_bytes() == damaged
    service.activate(name)
    assert identity.read_bytes() == good
    (kept,) = service.site.records.glob(f"{name}.identity.damaged-inside-*")
    assert kept.read_bytes() == damaged
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (0, 0o600)
    log = service.site.log.read_text()
    assert f"The record in home area {name} does not count" in log
    assert f"kept as {kept}" in log
    service.deactivate(name)
    service.call("RemoveHome", "s", name)
    assert not kept.exists()


def _directory(identity: Path) -> None:
    identity.unlink()
    identity.mkdir()
    (identity / "note").write_text("mine")


def _link(identity: Path) -> None:
    identity.rename(identity.with_name("record"))
    identity.symlink_to("record")


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a directory": _directory,
    "a link": _link,
    # As a backup in the home makes them that spares room.
    "another name": lambda identity: os.link(identity, identity.with_name("backup")),
    "too long": lambda identity: identity.write_bytes(bytes(2 << 20)),
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_what_is_no_record_in_the_home_locks_nobody_out(service: Service, what: str) -> None:
    name = f"olga{list(OBSTACLES).index(what)}"
    service.create(name)
    identity = service.site.base / f"{name}.homedir" / ".identity"
    good = identity.read_bytes()
    OBSTACLES[what](identity)
    for path in (identity.parent).rglob("*"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    before = identity.lstat().st_ino
    assert service.error("ActivateHome", "ss", name, secret(WRONG_PASSWORD)) == "BadPassword"
    assert identity.lstat().st_ino == before
    service.activate(name)
    assert identity.read_bytes() == good
    assert identity.lstat().st_nlink == 1
    (kept,) = identity.parent.glob(".identity.kept-*")
    assert kept.lstat().st_ino == before
    service.deactivate(name)
    service.activate(name)
    service.deactivate(name)


@pytest.mark.parametrize("what", DAMAGE)
def test_host_copy_comes_back_from_the_record_in_the_home(own_service: Service, what: str) -> None:
    service = own_service
    service.create("bert", realName="Bert B.")
    host = service.site.records / "bert.identity"
    service.stop()
    damaged = DAMAGE[what](host.read_bytes())
    host.write_bytes(damaged)
    service.start()
    assert service.state("bert") == "unfixated"
    assert service.error("ActivateHome", "ss", "bert", secret(WRONG_PASSWORD)) == "BadPassword"
    assert host.read_bytes() == damaged
    service.activate("bert")
    service.deactivate("bert")
    (kept,) = service.site.records.glob("bert.identity.unaccepted-*")
    assert kept.read_bytes() == damaged
    service.restart()
    assert service.state("bert") == "inactive"
    assert service.user_record("bert")["realName"] == "Bert B."
    service.activate("bert")


def test_only_the_latest_damaged_records_are_kept(service: Service) -> None:
    service.create("carl")
    identity = service.site.base / "carl.homedir" / ".identity"
    for number in range(10):
        identity.write_text(f"damage {number}")
        service.call("AuthenticateHome", "ss", "carl", secret(PASSWORD))
    kept = {p.read_text() for p in service.site.records.glob("carl.identity.damaged-inside-*")}
    assert kept == {f"damage {number}" for number in range(2, 10)}
    assert "carl.identity.damaged" not in str(service.states())


def test_kept_records_are_taken_for_no_user(own_service: Service) -> None:
    own_service.create("dora")
    identity = own_service.site.base / "dora.homedir" / ".identity"
    identity.write_text("{")
    own_service.activate("dora")
    own_service.deactivate("dora")
    own_service.restart()
    assert set(own_service.states()) == {"dora"}
    assert list(own_service.site.records.glob("dora.identity.damaged-inside-*"))


def test_password_of_before_does_not_come_back(service: Service) -> None:
    service.create("fred")
    identity = service.site.base / "fred.homedir" / ".identity"
    old = identity.read_bytes()
    new = people.secret(people.OTHER_PASSWORD)
    service.call("ChangePasswordHome", "sss", "fred", new, secret(PASSWORD))
    identity.write_bytes(old)
    assert service.error("ActivateHome", "ss", "fred", secret(PASSWORD)) == "BadPassword"
    identity.write_text("{")
    assert service.error("ActivateHome", "ss", "fred", secret(PASSWORD)) == "BadPassword"
    service.activate("fred", people.OTHER_PASSWORD)
    service.deactivate("fred")


def lose_host_copy(service: Service, name: str) -> None:
    service.stop()
    (service.site.records / f"{name}.identity").write_text("{")
    service.start()
    assert service.state(name) == "unfixated"


def test_record_of_before_does_not_take_the_place_of_a_lost_one(own_service: Service) -> None:
    """Its user can write the one in the home, and an older one was signed too."""
    service = own_service
    service.create("gina", memberOf=["wheel"], uid=60113)
    identity = service.site.base / "gina.homedir" / ".identity"
    old = identity.read_bytes()
    update = people.record("gina", privileged={"hashedPassword": [people.hashed()]})
    service.call("UpdateHome", "s", people.text(update))
    new = people.secret(people.OTHER_PASSWORD)
    service.call("ChangePasswordHome", "sss", "gina", new, secret(PASSWORD))
    current = identity.read_bytes()
    stamp = service.site.records / "record-stamps" / "gina"
    assert (stamp.stat().st_uid, stamp.stat().st_mode & 0o777) == (0, 0o600)
    # The one that is kept beside it does.
    identity.write_bytes(old)
    lose_host_copy(service, "gina")
    for member in ("ActivateHome", "AuthenticateHome", "FixateHome"):
        assert service.error(member, "ss", "gina", secret(PASSWORD)) == "BadPassword"
    service.activate("gina", people.OTHER_PASSWORD)
    service.deactivate("gina")
    assert "wheel" not in str(service.user_record("gina"))
    assert identity.read_bytes() == current
    # Without it, or if a version of before wrote the time alone, nobody can tell.
    for text in (f"{json.loads(current)['lastChangeUSec']}\n", unsigned(current)):
        identity.write_bytes(old)
        stamp.write_text(text)
        lose_host_copy(service, "gina")
        for member in ("ActivateHome", "AuthenticateHome", "FixateHome"):
            refused = service.failure(member, "ss", "gina", secret(PASSWORD))
            assert short(refused.name) == "RecordDowngrade"
        acquire = ("AcquireHome", "ssb", "gina", secret(PASSWORD), False)
        assert service.error(*acquire) == "RecordDowngrade"
        assert service.state("gina") == "unfixated"
        assert f"delete {stamp}" in refused.message
        # The one that was current is as good as ever.
        identity.write_bytes(current)
        service.activate("gina", people.OTHER_PASSWORD)
        service.deactivate("gina")
        assert "wheel" not in str(service.user_record("gina"))
    # An administrator may decide otherwise.
    identity.write_bytes(old)
    lose_host_copy(service, "gina")
    stamp.unlink()
    service.activate("gina")
    service.deactivate("gina")
    assert service.user_record("gina")["memberOf"] == ["wheel"]
    service.call("RemoveHome", "s", "gina")
    assert not stamp.exists()


def unsigned(identity: bytes) -> str:
    return json.dumps({**json.loads(identity), "signature": []})


def test_an_update_that_did_not_reach_the_home_survives_the_host_copy(own_service: Service) -> None:
    """Its files were away, or nobody gave the password: the home has the record of before."""
    service = own_service
    service.create("greta")
    offline = people.record("greta", realName="Greta G", secret=None)
    service.call("UpdateHomeEx", "sa{sh}t", people.text(offline), {}, 1)
    lose_host_copy(service, "greta")
    service.activate("greta")
    service.deactivate("greta")
    for text in (service.site.records, service.site.base / "greta.homedir"):
        (copy,) = (*text.glob("greta.identity"), *text.glob(".identity"))
        assert json.loads(copy.read_text())["realName"] == "Greta G"


def test_home_that_is_unregistered_is_known_by_any_record_again(service: Service) -> None:
    service.create("hugo", lastChangeUSec=1)
    identity = service.site.base / "hugo.homedir" / ".identity"
    old = identity.read_bytes()
    service.call("UpdateHome", "s", people.text(people.record("hugo")))
    service.call("UnregisterHome", "s", "hugo")
    identity.write_bytes(old)
    service.wait_for("hugo", "unfixated")
    service.activate("hugo")
    service.deactivate("hugo")
    assert service.user_record("hugo")["lastChangeUSec"] == 1
    stamp = service.site.records / "record-stamps" / "hugo"
    assert json.loads(stamp.read_text())["lastChangeUSec"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"realName": "Z" * (jsontext.MAX_RECORD_BYTES - 4096)},
        # Short in one line, and long with a line and its tabs for each value.
        {"org.example": [[[[[[[[[[[[[[[[0] * 60_000]]]]]]]]]]]]]]]},
    ],
    ids=["long", "deep"],
)
def test_a_record_that_nobody_could_read_again_is_not_taken(
    own_service: Service, fields: dict[str, object]
) -> None:
    own_service.create("anna")
    text = json.dumps(people.record("anna", **fields), separators=(",", ":"))
    assert len(text) <= jsontext.MAX_RECORD_BYTES
    refusals = [
        own_service.begin("UpdateHome", "s", text).failure(),
        own_service.begin("CreateHome", "s", text.replace("anna", "bert")).failure(),
        own_service.begin("RegisterHome", "s", text.replace("anna", "cleo")).failure(),
    ]
    own_service.restart()
    assert own_service.states() == {"anna": "inactive"}
    own_service.activate("anna")
    own_service.deactivate("anna")
    assert refusals == ["InvalidArgs"] * 3
