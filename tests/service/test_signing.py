"""Signing keys over the bus: accepted at once, named in refusals, the owner's alone to change."""

from __future__ import annotations

import json

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from tests.service import people
from tests.service.site import Service, wait_until


def signed_by(key: PrivateKey, name: str, **fields: object) -> str:
    """What a client sends to create a home with a record of another machine."""
    record = people.record(name, **fields)
    signed = sign(UserRecord({k: v for k, v in record.items() if k != "secret"}), key)
    return json.dumps({**signed.data, "secret": record["secret"]})


def test_a_key_is_accepted_from_the_moment_it_was_added(service: Service) -> None:
    friend = PrivateKey.generate()
    refused = service.failure("CreateHome", "s", signed_by(friend, "alice"))
    assert refused.name.endswith(".BadSignature")
    assert f"homemgr origins trust {friend.public.fingerprint}" in refused.message
    service.call("AddSigningKey", "sst", "friend.public", friend.public.pem, 0)
    assert service.call("GetSigningKey", "s", "friend.public") == [friend.public.pem, 0]
    (rows,) = service.call("ListSigningKeys")
    assert [row[0] for row in rows] == ["friend.public", "local.public"]  # type: ignore[attr-defined]
    service.call("CreateHome", "s", signed_by(friend, "alice"))
    service.activate("alice")
    service.deactivate("alice")
    service.call("RemoveSigningKey", "st", "friend.public", 0)
    assert service.error("ActivateHome", "ss", "alice", people.secret(people.PASSWORD)) == (
        "BadSignature"
    )
    assert service.error("GetSigningKey", "s", "friend.public") == "NoSuchKey"


def test_a_stored_record_counts_as_soon_as_its_key_does(own_service: Service) -> None:
    friend = PrivateKey.generate()
    own_service.call("AddSigningKey", "sst", "friend.public", friend.public.pem, 0)
    own_service.call("CreateHome", "s", signed_by(friend, "alice", realName="Alice A."))
    own_service.call("RemoveSigningKey", "st", "friend.public", 0)
    own_service.restart()
    assert own_service.state("alice") == "unfixated"
    assert friend.public.fingerprint in own_service.site.log.read_text()
    own_service.call("AddSigningKey", "sst", "friend.public", friend.public.pem, 0)
    own_service.wait_for("alice", "inactive")
    wait_until(lambda: own_service.user_record("alice").get("realName") == "Alice A.", "record")
    own_service.activate("alice")


def test_the_key_of_a_record_is_used_for_its_changes(own_service: Service) -> None:
    own_service.stop()
    key = PrivateKey.generate()
    path = own_service.site.records / "corporate.private"
    path.write_bytes(key.to_pem())
    path.chmod(0o400)
    own_service.start()
    own_service.call("CreateHome", "s", signed_by(key, "alice"))
    new, old = people.secret(people.OTHER_PASSWORD), people.secret(people.PASSWORD)
    own_service.call("ChangePasswordHome", "sss", "alice", new, old)
    for record in (
        own_service.site.records / "alice.identity",
        own_service.site.base / "alice.homedir/.identity",
    ):
        (entry,) = json.loads(record.read_text())["signature"]
        assert entry["key"] == key.public.pem


def test_flags_and_names_are_checked(service: Service) -> None:
    pem = PrivateKey.generate().public.pem
    assert service.error("AddSigningKey", "sst", "x.public", pem, 1) == "InvalidArgs"
    assert service.error("AddSigningKey", "sst", "local.public", pem, 0) == "InvalidArgs"
    assert service.error("AddSigningKey", "sst", "x.public", "no key", 0) == "InvalidArgs"
    assert service.error("RemoveSigningKey", "st", "local.public", 0) == "InvalidArgs"
