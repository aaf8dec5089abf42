"""Records stay the JSON they came as: sections, copies, and what survives them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from record_samples import MACHINE_ID, OTHER_ID, RECORD, records

from homemgr.errors import InvalidRecord
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import MAX_ENTRIES, MAX_SIGNATURES, UserRecord


def whole() -> UserRecord:
    """A record with every section there is."""
    return UserRecord(
        {
            **RECORD,
            "realm": "example.com",
            "binding": {OTHER_ID: {"uid": 5000}},
            "status": {MACHINE_ID: {"goodAuthenticationCounter": 1}},
            "signature": [{"data": "", "key": ""}],
            "secret": {"password": ["pw"]},
        }
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"userName": None}, ".userName: expected a user name, found null"),
        ({"userName": "a/b"}, ".userName: expected a user name, found 'a/b'"),
        ({"userName": "x" * 300}, ".userName: expected a user name"),
        ({"realm": "a."}, ".realm: expected a DNS name"),
        ({"realm": 5}, ".realm: expected a DNS name"),
        ({"privileged": []}, ".privileged: expected an object, found an array"),
        ({"privileged": None}, ".privileged: expected an object, found null"),
        ({"secret": "x"}, ".secret: expected an object, found a string"),
        ({"perMachine": {}}, ".perMachine: expected an array of objects"),
        ({"perMachine": [{}, 5]}, ".perMachine[1]: expected an object, found a number"),
        ({"perMachine": [{}] * (MAX_ENTRIES + 1)}, ".perMachine: expected at most 1024"),
        ({"signature": {}}, ".signature: expected an array of objects"),
        ({"signature": [{}] * (MAX_SIGNATURES + 1)}, ".signature: expected at most 32"),
        ({"binding": []}, ".binding: expected an object"),
        ({"binding": {MACHINE_ID: 1}}, f".binding.{MACHINE_ID}: expected an object"),
        ({"status": {"a b": []}}, '.status."a b": expected an object'),
    ],
)
def test_sections_of_another_shape_are_refused(change: JsonObject, message: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        UserRecord({**RECORD, **change})
    assert caught.value.message.startswith(message)


def test_a_record_without_name_is_none() -> None:
    with pytest.raises(InvalidRecord, match=r"^\.userName: expected a user name, found nothing"):
        UserRecord.parse("{}")


def test_realm_null_is_no_realm() -> None:
    record = UserRecord({"userName": "alice", "realm": None})
    assert record.realm is None
    assert record.user_and_realm == "alice"


def test_identity_is_name_and_realm() -> None:
    record = whole()
    assert (record.name, record.realm) == ("alice", "example.com")
    assert record.user_and_realm == "alice@example.com"
    assert record.is_same_user(whole().without("status"))
    assert not record.is_same_user(record.without("realm"))
    assert not record.is_same_user(record.replaced(userName="bob"))


def test_each_form_has_its_sections() -> None:
    record = whole()
    regular = set(record.data) - {"binding", "status", "secret"}
    assert set(record.embedded().data) == regular
    assert set(record.for_host().data) == set(record.data) - {"secret"}
    assert set(record.public().data) == set(record.data) - {"secret", "privileged"}


def test_copies_leave_the_original_alone() -> None:
    record = whole()
    before = json.dumps(record.data)
    record.embedded()
    record.replaced(realName="Other")
    record.replaced({"a-b": 1})
    record.with_binding(MACHINE_ID, {"uid": 1})
    record.with_status(MACHINE_ID, {"goodAuthenticationCounter": None})
    record.with_local_sections_of(UserRecord({"userName": "bob"}))
    assert json.dumps(record.data) == before


def test_without_nothing_is_the_record_itself() -> None:
    record = whole()
    assert record.without("org.example.missing") is record


def test_replaced_takes_any_member_name() -> None:
    record = whole().replaced({"org.example.x": 1}, realName="A")
    assert (record.data["org.example.x"], record.data["realName"]) == (1, "A")


def test_binding_is_merged_and_other_machines_keep_theirs() -> None:
    record = whole().with_binding(MACHINE_ID, {"uid": 60001, "gid": 60001})
    record = record.with_binding(MACHINE_ID, {"storage": "directory", "gid": None})
    assert record.binding(MACHINE_ID) == {"uid": 60001, "storage": "directory"}
    assert record.binding(OTHER_ID) == {"uid": 5000}
    assert record.binding("0" * 32) == {}


def test_status_is_merged() -> None:
    record = whole().with_status(MACHINE_ID, {"state": "active"})
    assert record.status(MACHINE_ID) == {"goodAuthenticationCounter": 1, "state": "active"}
    assert record.status(OTHER_ID) == {}


def test_local_sections_are_replaced_as_a_whole() -> None:
    mine = UserRecord({"userName": "alice", "binding": {MACHINE_ID: {"uid": 1}}})
    record = whole().with_local_sections_of(mine)
    assert record.data["binding"] == {MACHINE_ID: {"uid": 1}}
    assert "status" not in record.data
    assert "secret" in record.data


@pytest.mark.parametrize(
    ("stamp", "read"),
    [(5, 5), ("5", 5), (0, 0), (None, None), ("x", None), (-1, None), (True, None), ([], None)],
)
def test_stamps_are_read_permissively(stamp: Json, read: int | None) -> None:
    record = UserRecord({"userName": "alice", "lastChangeUSec": stamp})
    assert record.last_change_usec == read
    assert record.last_password_change_usec is None


def test_same_content_looks_at_the_signed_sections_only() -> None:
    record = whole()
    assert record.same_content(record.embedded().without("signature"))
    assert not record.same_content(record.replaced(realName="Other"))
    assert not record.same_content(record.replaced(privileged={}))
    assert not record.same_content(record.replaced(perMachine=[]))


def test_same_content_tells_true_from_one() -> None:
    one, true = (UserRecord({"userName": "a", "org.example.x": x}) for x in (1, True))
    assert one.data == true.data
    assert not one.same_content(true)


def test_repr_shows_the_name_and_nothing_else() -> None:
    assert repr(whole()) == "<UserRecord 'alice@example.com'>"


def test_the_view_of_a_machine_is_kept() -> None:
    record = whole()
    here, there = Machine(MACHINE_ID), Machine(OTHER_ID)
    assert record.on(here) is record.on(Machine(MACHINE_ID))
    assert record.on(there) is not record.on(here)
    assert record.on(there).uid == 5000


def test_unwritable_content_is_an_invalid_record() -> None:
    with pytest.raises(InvalidRecord, match="written as JSON"):
        UserRecord({"userName": "a", "x": "\ud800"}).canonical()


@given(records())
def test_unknown_members_survive_every_copy_and_form(data: JsonObject) -> None:
    record = UserRecord(data)
    copies = [
        UserRecord.parse(record.pretty()),
        UserRecord.parse(record.compact()),
        record.embedded(),
        record.for_host(),
        record.with_binding(MACHINE_ID, {"uid": 60001}).for_host(),
        record.with_status(MACHINE_ID, {"state": "active"}),
        record.replaced(realName="x").without("realName"),
    ]
    assert all(copy.same_content(record) for copy in copies)


@given(records())
def test_host_form_reads_back_whole(data: JsonObject) -> None:
    record = UserRecord(data).with_binding(MACHINE_ID, {"uid": 60001})
    assert json.dumps(UserRecord.parse(record.pretty()).data, sort_keys=True) == json.dumps(
        record.data, sort_keys=True
    )
