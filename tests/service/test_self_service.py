"""Owners change what is theirs, and get nothing else: polkit grants them just that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.record.jsontext import JsonObject
from homemgr.wire.messages import BusError
from tests import escapes
from tests.service import people
from tests.service.authority import Authority
from tests.service.holders import Stranger, stranger
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, short

HERE = Path("/etc/machine-id").read_text(encoding="ascii").strip()
OWNER = 60114
REFUSALS = {
    *("AccessDenied", "InvalidArgs", "BadSignature"),
    *("RecordDowngrade", "RecordMismatch", "NoSuchHome"),
}


@pytest.fixture(scope="module", autouse=True)
def authority(service: Service) -> Iterator[Authority]:
    with Authority(only="update-home-by-owner").on(service.site.bus_address) as running:
        running.granting.set()
        yield running


@pytest.fixture(scope="module")
def owner(service: Service) -> Iterator[Stranger]:
    service.create("anna", uid=OWNER, memberOf=["audio"])
    service.create("bert", uid=OWNER + 1)
    with stranger(OWNER, service.site.bus_address) as client:
        yield client


def refusal(client: Stranger, *call: object) -> str:
    """The error that comes; one that is none of REFUSALS would be a bug met by chance."""
    with pytest.raises(BusError) as caught:
        client.call(*call)  # type: ignore[arg-type]
    name = short(caught.value.name)
    assert name in REFUSALS, caught.value.message
    return name


def test_no_record_gets_an_owner_further(service: Service, owner: Stranger) -> None:
    own = service.user_record("anna")
    before = service.site.digest()
    tries = escapes.escapes(own, PASSWORD, HERE)
    assert len(tries) > 100
    for what, text in tries.items():
        for call in (("UpdateHome", "s", text), ("UpdateHomeEx", "sa{sh}t", text, {}, 1)):
            refusal(owner, *call)
            assert service.site.digest() == before, what
    owner.call("UpdateHome", "s", escapes.free(own, PASSWORD))
    changed = service.user_record("anna")
    assert changed["location"] != own.get("location")
    assert changed["memberOf"] == ["audio"]


def test_home_object_takes_no_more_than_the_manager(service: Service, owner: Stranger) -> None:
    own = service.user_record("anna")
    before = service.site.digest()
    texts = {
        "groups": json.dumps(escapes.changed(own, PASSWORD, memberOf=["sudo"])),
        "another": json.dumps(escapes.changed(service.user_record("bert"), PASSWORD)),
        "own name on another's object": json.dumps(escapes.changed(own, PASSWORD)),
    }
    for what, text in texts.items():
        name = "bert" if "object" in what else "anna"
        for member, signature, more in (("Update", "s", ()), ("UpdateEx", "sa{sh}t", ({}, 0))):
            with pytest.raises(BusError) as caught:
                owner.call_home(name, member, signature, text, *more)
            assert short(caught.value.name) in ("AccessDenied", "RecordMismatch"), what
    assert service.site.digest() == before


def test_record_of_before_cannot_be_brought_back(service: Service, owner: Stranger) -> None:
    """Signed by this very service, with a group that was taken away since."""
    before = service.user_record("anna")
    service.call("UpdateHome", "s", json.dumps(escapes.changed(before, PASSWORD, memberOf=[])))
    old: JsonObject = {k: v for k, v in before.items() if k not in ("binding", "status")}
    old["secret"] = {"password": [PASSWORD]}
    stamp = time.time_ns() // 1000
    assert refusal(owner, "UpdateHome", "s", json.dumps(old)) in ("AccessDenied", "RecordDowngrade")
    newer = {**old, "lastChangeUSec": stamp}
    assert refusal(owner, "UpdateHome", "s", json.dumps(newer)) == "AccessDenied"
    # Root cannot bring it back that way either: the signature tells of another time.
    assert service.error("UpdateHome", "s", json.dumps(old)) == "RecordDowngrade"
    assert service.error("UpdateHome", "s", json.dumps(newer)) == "BadSignature"
    assert not service.user_record("anna").get("memberOf")


def test_signature_of_another_record_is_none(service: Service, owner: Stranger) -> None:
    """Taken over from another user's record, which everybody may read."""
    stolen = service.user_record("bert")["signature"]
    own = escapes.changed(service.user_record("anna"), PASSWORD, signature=stolen)
    assert refusal(owner, "UpdateHome", "s", json.dumps(own)) == "BadSignature"


def test_secrets_that_come_along_are_not_kept(service: Service, owner: Stranger) -> None:
    own = escapes.changed(service.user_record("anna"), PASSWORD)
    own["secret"] = {"password": [PASSWORD], "memberOf": ["sudo"], "hashedPassword": ["x"]}
    owner.call("UpdateHome", "s", json.dumps(own))
    for text in (
        (service.site.records / "anna.identity").read_text(),
        (service.site.base / "anna.homedir" / ".identity").read_text(),
    ):
        assert "sudo" not in text
        assert PASSWORD not in text
        assert '"secret"' not in text


def test_others_credentials_are_needed_and_not_the_session(
    service: Service, owner: Stranger, authority: Authority
) -> None:
    own = service.user_record("anna")
    hashes: JsonObject = {"hashedPassword": [people.hashed(OTHER_PASSWORD)]}
    keys: JsonObject = {**hashes, "sshAuthorizedKeys": ["ssh-ed25519 AAAA mallory"]}
    before = service.site.digest()
    for privileged in (hashes, keys, {}):
        text = json.dumps(escapes.changed(own, PASSWORD, privileged=privileged))
        assert refusal(owner, "UpdateHomeEx", "sa{sh}t", text, {}, 1) == "AccessDenied"
    for flags in (2, 3, 1 << 63):
        text = json.dumps(escapes.changed(own, PASSWORD))
        assert refusal(owner, "UpdateHomeEx", "sa{sh}t", text, {}, flags) == "InvalidArgs"
    text = json.dumps(escapes.changed(own, WRONG_PASSWORD, location="there"))
    with pytest.raises(BusError) as caught:
        owner.call("UpdateHome", "s", text)
    assert short(caught.value.name) == "BadPassword"
    assert service.site.digest() == before
    # Another hash, of whatever password, is none that the rules for passwords have seen.
    changed = escapes.changed(own, OTHER_PASSWORD, privileged={**own["privileged"], **hashes})
    changed["secret"] = {"password": [PASSWORD, OTHER_PASSWORD]}
    assert refusal(owner, "UpdateHome", "s", json.dumps(changed)) == "AccessDenied"
    assert service.site.digest() == before
    assert set(authority.actions) <= {"update-home", "update-home-by-owner"}


def test_nothing_of_another_user_is_within_reach(service: Service, owner: Stranger) -> None:
    before = service.site.digest()
    calls: tuple[tuple[object, ...], ...] = (
        ("UpdateHome", "s", json.dumps(escapes.changed(service.user_record("bert"), PASSWORD))),
        ("ActivateHome", "ss", "bert", secret(PASSWORD)),
        ("AuthenticateHome", "ss", "bert", secret(PASSWORD)),
        ("ChangePasswordHome", "sss", "bert", secret(OTHER_PASSWORD), secret(PASSWORD)),
        ("RemoveHome", "s", "bert"),
        ("UnregisterHome", "s", "bert"),
        ("CreateHome", "s", people.text(people.record("mallory", uid=OWNER + 1))),
        ("RegisterHome", "s", people.text(people.record("mallory", memberOf=["sudo"]))),
    )
    for call in calls:
        assert refusal(owner, *call) == "AccessDenied"
    assert service.site.digest() == before
    shown = json.loads(str(owner.call("GetUserRecordByName", "s", "bert")[0]))
    assert "privileged" not in shown
