"""Merging: the order of sections, unions, null, unreadable values, defaults."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID, OTHER_ID

from homemgr.record.effective import EffectiveRecord
from homemgr.record.fields import FIELDS, IDMAP_POLICY, OWN_STORAGE
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

HERE: JsonObject = {"matchMachineId": MACHINE_ID}
THERE: JsonObject = {"matchMachineId": OTHER_ID}


def effective(given: JsonObject | None = None, /, **members: Json) -> EffectiveRecord:
    record = UserRecord({"userName": "alice", **(given or {}), **members})
    return record.on(Machine(MACHINE_ID, "laptop", "/srv/home"))


def test_later_sections_replace_earlier_ones() -> None:
    stages: list[tuple[JsonObject, int]] = [
        ({"uid": 1001}, 1001),
        ({"perMachine": [{**HERE, "uid": 1002}, {**THERE, "uid": 9}]}, 1002),
        ({"perMachine": [{**HERE, "uid": 1002}, {**HERE, "uid": 1003}]}, 1003),
        ({"binding": {MACHINE_ID: {"uid": 1004}, OTHER_ID: {"uid": 9}}}, 1004),
    ]
    members: JsonObject = {}
    for more, uid in stages:
        members.update(more)
        assert effective(**members).uid == uid


def test_status_comes_last() -> None:
    members: JsonObject = {
        "accessMode": 0o700,
        "perMachine": [{**HERE, "accessMode": "0750"}],
        "binding": {MACHINE_ID: {"accessMode": 0o711}},
    }
    assert effective(**members).access_mode == 0o750  # a binding has no access mode
    members["status"] = {MACHINE_ID: {"accessMode": 0o755}}
    assert effective(**members).access_mode == 0o755


def test_fields_count_only_in_their_sections() -> None:
    view = effective(
        perMachine=[{**HERE, "realName": "Other", "homeDirectory": "/elsewhere"}],
        status={MACHINE_ID: {"uid": 5, "storage": "luks"}},
        binding={MACHINE_ID: {"shell": "/bin/false"}},
        hashedPassword=["public by mistake"],
    )
    assert view.real_name == "alice"
    assert view.home_directory == "/srv/home/alice"
    assert (view.uid, view.storage, view.shell) == (None, None, "/bin/bash")
    assert view.hashed_passwords == ()


def test_member_of_and_aliases_are_united() -> None:
    view = effective(
        memberOf=["users", "audio"],
        perMachine=[{**HERE, "memberOf": ["video", "users"]}, {**THERE, "memberOf": ["wheel"]}],
        aliases=["al"],
        status={MACHINE_ID: {"aliases": ["al", "ally"]}},
    )
    assert view.member_of == ("users", "audio", "video")
    assert view.aliases == ("al", "ally")


def test_null_resets_to_unset() -> None:
    view = effective(
        {"shell": "/bin/zsh"},
        uid=1001,
        memberOf=["a"],
        perMachine=[{**HERE, "uid": None, "shell": None, "memberOf": None}],
    )
    assert (view.uid, view.shell, view.member_of) == (None, "/bin/bash", ())
    assert not view.is_set("shell")
    assert effective({"shell": "/bin/zsh"}).is_set("shell")


def test_unreadable_values_are_passed_over() -> None:
    view = effective(
        {"shell": "bash"},
        uid="x",
        perMachine=[{**HERE, "storage": "directory"}, {**HERE, "storage": 5}],
    )
    assert (view.uid, view.shell, view.storage) == (None, "/bin/bash", "directory")


def test_every_field_of_the_table_has_a_value() -> None:
    view = effective()
    for name, field in FIELDS.items():
        expected = "alice" if name == "userName" else field.default
        assert view.get(name) == expected


def test_an_unknown_field_is_the_programs_mistake() -> None:
    with pytest.raises(KeyError):
        effective().get("org.example.x")


def test_values_are_kept_once_read() -> None:
    view = effective(memberOf=["a"])
    assert view.get("memberOf") is view.get("memberOf")


def test_defaults_of_the_typed_view() -> None:
    view = effective()
    assert view.name == "alice"
    assert view.realm is None
    assert view.user_and_realm == "alice"
    assert (view.uid, view.gid) == (None, None)
    assert view.real_name == "alice"
    assert view.home_directory == "/srv/home/alice"
    assert (view.image_path, view.storage, view.disk_size) == (None, None, None)
    assert (view.shell, view.skeleton_directory) == ("/bin/bash", "/etc/skel")
    assert (view.mount_nosuid, view.mount_nodev, view.mount_noexec) == (True, True, False)
    assert (view.rate_limit_interval_usec, view.rate_limit_burst) == (60_000_000, 30)
    assert (view.rate_limit_begin_usec, view.rate_limit_count) == (None, 0)
    assert (view.good_authentication_counter, view.bad_authentication_counter) == (0, 0)
    assert (view.auto_login, view.locked, view.enforce_password_policy) == (False, False, True)
    assert (view.not_before_usec, view.not_after_usec) == (None, None)
    assert view.password_change_now is False
    assert view.last_password_change_usec is None
    assert view.password_change_min_usec is None
    assert view.password_change_max_usec is None
    assert view.password_change_warn_usec is None
    assert view.password_change_inactive_usec is None
    assert (view.blob_directory, view.blob_manifest) == (None, None)
    assert (view.hashed_passwords, view.ssh_authorized_keys) == ((), ())
    assert (view.recovery_key_hashes, view.token_hashes) == ((), ())
    assert "shell" in view.self_modifiable_fields
    assert view.self_modifiable_blobs == ("avatar", "login-background")
    assert "hashedPassword" in view.self_modifiable_privileged
    assert (view.service, view.disposition) == (None, None)


def test_values_of_the_typed_view() -> None:
    view = effective(
        realm="example.com",
        uid=60001,
        locked=True,
        blobManifest={"avatar": "0" * 64},
        selfModifiableFields=[],
        privileged={
            "hashedPassword": "one",
            "sshAuthorizedKeys": ["ssh-ed25519 AAAA"],
            "recoveryKey": [{"type": "modhex64", "hashedPassword": "r"}],
            "pkcs11EncryptedKey": [{"uri": "pkcs11:", "data": "", "hashedPassword": "p"}],
            "fido2HmacSalt": [{"credential": "", "salt": "", "hashedPassword": "f"}],
        },
    )
    assert (view.uid, view.gid) == (60001, 60001)
    assert view.user_and_realm == "alice@example.com"
    assert view.locked
    assert view.blob_manifest == {"avatar": "0" * 64}
    assert view.self_modifiable_fields == ()
    assert view.hashed_passwords == ("one",)
    assert view.ssh_authorized_keys == ("ssh-ed25519 AAAA",)
    assert view.recovery_key_hashes == ("r",)
    assert view.token_hashes == ("p", "f")


def test_an_empty_manifest_is_not_a_missing_one() -> None:
    assert effective(blobManifest={}).blob_manifest == {}


@pytest.mark.parametrize(
    ("real_name", "shown"), [("A:B\nC", "A B C"), ("", "alice"), ("Zoë", "Zoë"), ("a\tb", "a b")]
)
def test_real_name_fits_into_a_passwd_line(real_name: str, shown: str) -> None:
    assert effective(realName=real_name).real_name == shown


@pytest.mark.parametrize(
    ("members", "policy"),
    [
        ({}, "homed"),
        ({IDMAP_POLICY: "strict"}, "strict"),
        ({IDMAP_POLICY: "wide"}, "homed"),
        ({IDMAP_POLICY: "homed", "binding": {MACHINE_ID: {IDMAP_POLICY: "strict"}}}, "strict"),
        ({"perMachine": [{**HERE, IDMAP_POLICY: "strict"}]}, "homed"),
    ],
)
def test_idmap_policy_stands_in_regular_and_binding(members: JsonObject, policy: str) -> None:
    assert effective(**members).idmap_policy == policy


def test_lookup_names_cover_aliases_and_realm() -> None:
    assert effective(aliases=["al"]).lookup_names == ("alice", "al")
    assert effective(aliases=["al", "alice"], realm="x.org").lookup_names == (
        "alice", "al", "alice@x.org", "al@x.org",
    )  # fmt: skip


def test_a_storage_of_ours_stands_beside_one_that_all_know() -> None:
    image: JsonObject = {"storage": "directory", OWN_STORAGE: "image"}
    assert effective(image).storage == "image"
    assert effective(image).get("storage") == "image"
    # Each section says both: where the home was made counts less than where it lies here.
    assert effective(image, binding={MACHINE_ID: {"storage": "luks"}}).storage == "luks"
    assert effective(image, perMachine=[{**HERE, "storage": "subvolume"}]).storage == "subvolume"
    assert effective({**image, OWN_STORAGE: "tape"}).storage == "directory"
    assert effective({**image, OWN_STORAGE: None}).storage == "directory"
    for file_name, storage in (("a.homeimage", "image"), ("a.homedir", "directory")):
        lies: JsonObject = {"storage": "directory", "imagePath": f"/x/{file_name}"}
        assert effective(image, binding={MACHINE_ID: lies}).storage == storage
        assert effective(storage="luks", binding={MACHINE_ID: lies}).storage == storage
