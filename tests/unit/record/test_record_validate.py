"""Admission: sections per purpose, mandatory rules, types, each with its path."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID, OTHER_ID, VECTOR_TEXT

from homemgr.errors import HostileHome, InvalidArgs, InvalidRecord, UIDNotAllowed, bus_name_of
from homemgr.record.jsontext import JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.validate import Purpose, parse_embedded, validate

HERE = Machine(MACHINE_ID, "laptop")
GOOD: JsonObject = {
    "userName": "alice",
    "disposition": "regular",
    "privileged": {"hashedPassword": ["h"]},
}
BROUGHT_IN = (Purpose.CREATE, Purpose.REGISTER, Purpose.UPDATE)


def entry(**members: object) -> JsonObject:
    """GOOD with one perMachine entry for this machine."""
    return {"perMachine": [{"matchMachineId": MACHINE_ID, **members}]}


def refusal(purpose: Purpose, change: JsonObject) -> str:
    with pytest.raises(InvalidArgs) as caught:
        validate(UserRecord({**GOOD, **change}), purpose, HERE)
    return caught.value.message


@pytest.mark.parametrize("purpose", Purpose)
def test_a_plain_record_is_fit_for_everything(purpose: Purpose) -> None:
    record = UserRecord(dict(GOOD))
    assert validate(record, purpose, HERE).data == GOOD
    assert validate(record, purpose).data == GOOD


def test_what_homectl_sends_is_fit() -> None:
    record = UserRecord(
        {
            **GOOD,
            "realName": "Alice",
            "lastChangeUSec": 1,
            "lastPasswordChangeUSec": 1,
            "perMachine": [
                {"matchMachineId": MACHINE_ID, "storage": "directory", "diskSize": 1 << 30}
            ],
            "secret": {"password": ["pw"]},
        }
    )
    assert validate(record, Purpose.CREATE, HERE) is record
    assert validate(record, Purpose.UPDATE, HERE) is record


# --- sections -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "refused"),
    [
        (Purpose.CREATE, {"binding", "status"}),
        (Purpose.UPDATE, {"binding", "status"}),
        (Purpose.REGISTER, set()),
        (Purpose.STORED, {"secret"}),
    ],
)
def test_sections_that_must_not_be_there(purpose: Purpose, refused: set[str]) -> None:
    for section in ("binding", "status", "secret"):
        if section in refused:
            assert refusal(purpose, {section: {}}).startswith(f".{section}: must not be")
        else:
            validate(UserRecord({**GOOD, section: {}}), purpose, HERE)


def test_register_strips_what_is_not_the_users() -> None:
    record = UserRecord({**GOOD, "binding": {}, "status": {}, "secret": {}, "signature": []})
    assert set(validate(record, Purpose.REGISTER, HERE).data) == {*GOOD, "signature"}


@pytest.mark.parametrize("section", ["binding", "status", "secret"])
def test_local_sections_in_the_home_are_hostile(section: str) -> None:
    with pytest.raises(HostileHome) as caught:
        validate(UserRecord({**GOOD, section: {}}), Purpose.EMBEDDED)
    assert bus_name_of(caught.value) == "System.Error.EBADMSG"


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"\xff", b"[" * 5000, b'{"userName":"a","status":{}}', b'{"userName":1}']
)
def test_a_broken_identity_file_is_the_homes_fault_not_the_callers(text: bytes) -> None:
    with pytest.raises(HostileHome):
        parse_embedded(text)


def test_a_good_identity_file_is_read() -> None:
    assert parse_embedded(UserRecord(dict(GOOD)).pretty()).data == GOOD


# --- mandatory rules ------------------------------------------------------------


@pytest.mark.parametrize("purpose", BROUGHT_IN)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disposition": "system"}, ".disposition: expected regular, found 'system'."),
        ({"service": "org.example"}, ".service: expected io.systemd.Home, found 'org.example'."),
        ({"storage": "classic"}, ".storage: expected one of luks, directory"),
        ({"blobDirectory": "/x"}, ".blobDirectory: must not be set"),
        ({"uid": 60001, "gid": 60002}, ".gid: expected the same id as uid, found 60002 and uid 60"),
        ({"gid": 60001}, ".gid: expected the same id as uid, found 60001 and no uid"),
        ({"aliases": ["al", "root"]}, ".aliases[1]: expected a name for people, found 'root'"),
        (
            {"__systemd_homework_internal_blob_fdmap": {}},
            ".__systemd_homework_internal_blob_fdmap: must not be set",
        ),
        (entry(storage="classic"), ".perMachine[0].storage: expected one of luks"),
        (entry(blobDirectory="/x"), ".perMachine[0].blobDirectory: must not be set"),
        (entry(uid=60001, gid=60002), ".perMachine[0].gid: expected the same id"),
        ({"perMachine": [{"matchHostname": 5}]}, ".perMachine[0].matchHostname: expected a string"),
    ],
)
def test_mandatory_rules_hold_for_all_that_is_brought_in(
    purpose: Purpose, change: JsonObject, message: str
) -> None:
    assert refusal(purpose, change).startswith(message)


@pytest.mark.parametrize("purpose", BROUGHT_IN)
def test_entries_of_other_machines_are_none_of_our_business(purpose: Purpose) -> None:
    foreign: JsonObject = {
        "matchMachineId": OTHER_ID, "storage": "classic", "uid": 5, "gid": 6, "shell": 5,
        "org.example.x": 1,
    }  # fmt: skip
    validate(UserRecord({**GOOD, "perMachine": [foreign]}), purpose, HERE)


@pytest.mark.parametrize("purpose", BROUGHT_IN)
def test_our_own_values_of_the_mandatory_fields_are_fine(purpose: Purpose) -> None:
    change: JsonObject = {"service": "io.systemd.Home", "uid": 60001, "gid": 60001, "storage": None}
    validate(UserRecord({**GOOD, **change}), purpose, HERE)


@pytest.mark.parametrize("purpose", [Purpose.STORED, Purpose.EMBEDDED])
def test_records_that_exist_are_still_records_of_homes(purpose: Purpose) -> None:
    with pytest.raises(InvalidRecord, match=r"^\.disposition: expected regular"):
        validate(UserRecord({**GOOD, "disposition": "system"}), purpose, HERE)
    validate(UserRecord({**GOOD, "shell": 5, "uid": "x", "aliases": 7}), purpose, HERE)


@pytest.mark.parametrize("purpose", [Purpose.CREATE, Purpose.REGISTER])
@pytest.mark.parametrize("name", ["a.b", "root", "systemd-x", "x" * 32, "Ärger", "a b"])
def test_new_users_have_strict_names(purpose: Purpose, name: str) -> None:
    refusal(purpose, {"userName": name})


@pytest.mark.parametrize("purpose", [Purpose.UPDATE, Purpose.STORED, Purpose.EMBEDDED])
def test_existing_users_have_relaxed_names(purpose: Purpose) -> None:
    validate(UserRecord({**GOOD, "userName": "a.b"}), purpose, HERE)


def test_names_given_to_nobody_are_refused() -> None:
    record = UserRecord({**GOOD, "userName": "nfsnobody"})
    validate(record, Purpose.CREATE, HERE)
    with pytest.raises(InvalidArgs, match="reserved"):
        validate(record, Purpose.CREATE, HERE, nobody_names=("nfsnobody",))


@pytest.mark.parametrize("purpose", [Purpose.CREATE, Purpose.REGISTER])
@pytest.mark.parametrize("uid", [0, 999, 60600, 61184, 65534])
def test_new_users_have_allowed_uids(purpose: Purpose, uid: int) -> None:
    for change in ({"uid": uid}, entry(uid=uid)):
        with pytest.raises(UIDNotAllowed, match=str(uid)):
            validate(UserRecord({**GOOD, **change}), purpose, HERE)
    validate(UserRecord({**GOOD, "uid": uid}), Purpose.UPDATE, HERE)


@pytest.mark.parametrize("privileged", [{}, {"hashedPassword": []}, {"passwordHint": "x"}])
def test_a_new_home_needs_a_password_to_compare_with(privileged: JsonObject) -> None:
    change: JsonObject = {"privileged": privileged}
    assert refusal(Purpose.CREATE, change).startswith(".privileged.hashedPassword: expected")
    validate(UserRecord({**GOOD, **change}), Purpose.REGISTER, HERE)


# --- types --------------------------------------------------------------------


WRONG_TYPES: list[tuple[JsonObject, str]] = [
    ({"realName": 5}, ".realName: expected a string, found 5."),
    ({"shell": "bash"}, ".shell: expected an absolute path"),
    ({"homeDirectory": "/home/../etc"}, ".homeDirectory: expected an absolute normalized path"),
    ({"imagePath": "/"}, ".imagePath: expected an absolute normalized path other than /"),
    ({"diskSize": 5}, ".diskSize: expected an integer of 5242880..5497558138880, found 5."),
    ({"environment": ["A"]}, ".environment[0]: expected an assignment"),
    ({"org.homemgr.idmapPolicy": "x"}, '."org.homemgr.idmapPolicy": expected one of strict, homed'),
    ({"hashedPassword": ["h"]}, ".hashedPassword: must not be set in this section."),
    ({"state": "active"}, ".state: must not be set in this section."),
    (
        {"privileged": {"hashedPassword": ["h", 5]}},
        ".privileged.hashedPassword[1]: expected a string, found a number.",
    ),
    ({"secret": {"password": 5}}, ".secret.password: expected a string, found a number."),
    (entry(mountNoSuid=1), ".perMachine[0].mountNoSuid: expected true or false, found 1."),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TYPES)
def test_create_refuses_wrong_types_with_their_path(change: JsonObject, message: str) -> None:
    assert refusal(Purpose.CREATE, change).startswith(message)


@pytest.mark.parametrize(("change", "message"), WRONG_TYPES)
@pytest.mark.parametrize("purpose", [Purpose.REGISTER, Purpose.UPDATE])
def test_register_and_update_read_permissively(
    purpose: Purpose, change: JsonObject, message: str
) -> None:
    del message
    validate(UserRecord({**GOOD, **change}), purpose, HERE)


def test_unknown_members_are_fine_except_in_an_entry_for_us() -> None:
    change: JsonObject = {
        "org.example.x": {"deep": [1]},
        "privileged": {"hashedPassword": ["h"], "org.example.y": 1},
        "perMachine": [{"matchMachineId": OTHER_ID, "org.example.z": 1}],
    }
    validate(UserRecord({**GOOD, **change}), Purpose.CREATE, HERE)
    message = refusal(Purpose.CREATE, entry(**{"org.example.z": "content"}))
    assert message.startswith('.perMachine[0]."org.example.z": expected a known field')
    assert "content" not in message
    for purpose in (Purpose.REGISTER, Purpose.UPDATE):
        validate(UserRecord({**GOOD, **entry(**{"org.example.z": 1})}), purpose, HERE)


def test_null_is_unset_in_every_field() -> None:
    change: JsonObject = {"shell": None, "uid": None, "gid": None, "storage": None}
    validate(UserRecord({**GOOD, **change}), Purpose.CREATE, HERE)


def test_without_a_machine_every_entry_is_typed_and_none_is_ours() -> None:
    record = UserRecord({**GOOD, "perMachine": [{"matchMachineId": OTHER_ID, "uid": 5, "gid": 6}]})
    validate(record, Purpose.CREATE)
    broken = UserRecord({**GOOD, "perMachine": [{"matchMachineId": OTHER_ID, "shell": 5}]})
    with pytest.raises(InvalidRecord, match=r"^\.perMachine\[0\]\.shell"):
        validate(broken, Purpose.CREATE)


def test_the_record_of_real_homed_is_fit_to_register_and_to_update() -> None:
    record = UserRecord.parse(VECTOR_TEXT)
    for purpose in (Purpose.REGISTER, Purpose.UPDATE, Purpose.STORED, Purpose.EMBEDDED):
        assert validate(record, purpose, HERE) is record
