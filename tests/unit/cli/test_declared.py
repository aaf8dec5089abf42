"""What a file declares about users, and which fields differ from what there is."""

from __future__ import annotations

import pytest

from homemgr.cli import declared
from homemgr.cli.declared import Change
from homemgr.errors import InvalidRecord
from homemgr.record.jsontext import Json, JsonObject

CURRENT: JsonObject = {
    "userName": "alice",
    "realName": "Alice",
    "shell": "/bin/sh",
    "lastChangeUSec": 5,
    "privileged": {"hashedPassword": ["old"], "passwordHint": "cat"},
    "binding": {"m": {"uid": 60001}},
    "signature": [],
}


def test_a_record_and_a_list_of_them_are_read() -> None:
    (one,) = declared.read({"userName": "alice", "shell": None, "passwordFile": "/x"})
    assert one == ("alice", "present", {"userName": "alice", "shell": None}, ("passwordFile", "/x"))
    two = declared.read([{"userName": "a"}, {"userName": "b", "state": "absent"}])
    assert [(user.user, user.state) for user in two] == [("a", "present"), ("b", "absent")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("alice", "[0]: expected an object"),
        ([{}], "[0].userName: "),
        ([{"userName": "a"}, {"userName": "a"}], "a is declared twice"),
        ({"userName": "a", "state": "gone"}, "[0].state: expected present or absent"),
        ({"userName": "a", "passwordFile": 1}, "[0].passwordFile: expected a string"),
        ({"userName": "a", "passwordFile": "x", "passwordCredential": "y"}, "exclude each other"),
        ({"userName": "a", "privileged": []}, "[0].privileged"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_place(value: Json, reason: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        declared.read(value)
    assert reason in caught.value.message


def test_only_declared_fields_count() -> None:
    wanted: JsonObject = {
        "userName": "alice",
        "realName": "Alicia",
        "shell": None,
        "location": None,
        "privileged": {"hashedPassword": ["new"], "passwordHint": None, "sshAuthorizedKeys": ["k"]},
        "lastChangeUSec": 9,
        "secret": {"password": ["x"]},
        "signature": [{}],
    }
    found = declared.differences(CURRENT, wanted)
    assert found == [
        Change("realName", "Alice", "Alicia"),
        Change("shell", "/bin/sh", None),
        Change("privileged.passwordHint", "cat", None),
        Change("privileged.sshAuthorizedKeys", None, ["k"]),
    ]
    assert [change.is_private for change in found] == [False, False, True, True]
    made = declared.changed(CURRENT, found)
    assert made == {
        "userName": "alice",
        "realName": "Alicia",
        "privileged": {"hashedPassword": ["old"], "sshAuthorizedKeys": ["k"]},
    }
    assert declared.differences(made, wanted) == []
    assert CURRENT["shell"] == "/bin/sh"


def test_a_new_record_has_no_nulls() -> None:
    record: JsonObject = {"userName": "a", "shell": None, "privileged": {"passwordHint": None}}
    assert declared.without_nulls(record) == {"userName": "a", "privileged": {}}
