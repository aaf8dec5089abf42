"""Changes: what a password change does to a record, which updates are accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from record_samples import MACHINE_ID, OTHER_ID, records

from homemgr.errors import HomeError, RecordDowngrade, RecordMismatch
from homemgr.record import changes
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.model import UserRecord

NOW = 5_000


def test_a_password_change_stamps_and_replaces_the_hashes(record: UserRecord) -> None:
    changed = changes.with_new_password(record, ["new", "two"], NOW)
    assert changed.section("privileged") == {
        "hashedPassword": ["new", "two"],
        "com.example.more": True,
    }
    assert changed.last_change_usec == NOW
    assert changed.last_password_change_usec == NOW


def test_a_record_without_privileged_section_gets_one() -> None:
    changed = changes.with_new_password(UserRecord({"userName": "a"}), ["new"], NOW)
    assert changed.section("privileged") == {"hashedPassword": ["new"]}


def test_the_demand_to_change_goes_everywhere() -> None:
    record = UserRecord(
        {
            "userName": "alice",
            "passwordChangeNow": True,
            "perMachine": [
                {"passwordChangeNow": True},
                {"matchMachineId": MACHINE_ID, "passwordChangeNow": True, "org.example.x": 1},
                {"matchMachineId": OTHER_ID, "passwordChangeNow": False},
                {"matchHostname": "x", "shell": "/bin/sh"},
            ],
        }
    )
    changed = changes.with_new_password(record, ["new"], NOW)
    assert "passwordChangeNow" not in changed.data
    assert changed.data["perMachine"] == [
        {"matchMachineId": MACHINE_ID, "org.example.x": 1},
        {"matchMachineId": OTHER_ID},
        {"matchHostname": "x", "shell": "/bin/sh"},
    ]


def test_a_section_emptied_by_it_is_dropped() -> None:
    record = UserRecord({"userName": "alice", "perMachine": [{"passwordChangeNow": True}]})
    assert "perMachine" not in changes.with_new_password(record, ["new"], NOW).data


def test_entries_that_demand_nothing_stay_as_they_are() -> None:
    record = UserRecord({"userName": "alice", "perMachine": [{}, {"shell": "/bin/sh"}]})
    changed = changes.with_new_password(record, ["new"], NOW)
    assert changed.data["perMachine"] == [{}, {"shell": "/bin/sh"}]


def test_the_old_signature_does_not_stay(record: UserRecord) -> None:
    signed = record.replaced(signature=[{"data": "x"}])
    assert "signature" not in changes.with_new_password(signed, ["new"], NOW).data
    assert "signature" not in changes.stamped(signed, NOW).data


@pytest.mark.parametrize("stamp", [NOW, NOW + 1])
@pytest.mark.parametrize("name", ["lastChangeUSec", "lastPasswordChangeUSec"])
def test_stamps_that_are_not_in_the_past_are_refused(
    record: UserRecord, name: str, stamp: int
) -> None:
    with pytest.raises(RecordMismatch, match=name):
        changes.with_new_password(record.replaced({name: stamp}), ["new"], NOW)


def test_other_changes_leave_the_password_stamp_alone(record: UserRecord) -> None:
    stamped = changes.stamped(record.replaced(lastPasswordChangeUSec=NOW + 9), NOW)
    assert stamped.last_change_usec == NOW
    assert stamped.last_password_change_usec == NOW + 9


@given(records())
def test_unknown_members_survive_a_password_change(data: JsonObject) -> None:
    record = UserRecord(data)
    changed = changes.with_new_password(record, ["new"], NOW)
    privileged: JsonObject = {**changed.section("privileged")}
    assert privileged.pop("hashedPassword") == ["new"]
    back = changed.without("lastChangeUSec", "lastPasswordChangeUSec")
    assert back.replaced(privileged=privileged).same_content(record)


@pytest.mark.parametrize(
    ("stamp", "kept"), [(NOW - 1, NOW - 1), (NOW, NOW), (NOW + 1, NOW), (2**62, NOW)]
)
@pytest.mark.parametrize("name", ["lastChangeUSec", "lastPasswordChangeUSec"])
def test_what_arrives_from_a_clock_ahead_can_be_changed(
    record: UserRecord, name: str, stamp: int, kept: int
) -> None:
    known = record.replaced({name: stamp}).replaced(signature=[{"data": "x"}])
    arrived = changes.without_future(known, NOW)
    assert arrived.data == record.replaced({name: kept}).data
    changes.with_new_password(arrived, ["new"], NOW + 1)


def test_a_stamp_that_is_missing_stays_so(record: UserRecord) -> None:
    unstamped = record.without("lastChangeUSec")
    assert changes.without_future(unstamped, NOW).data == unstamped.data


# --- updates ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"lastChangeUSec": 1001, "realName": "B"}, None),
        ({"lastChangeUSec": 1001}, None),
        ({}, None),
        ({"signature": []}, None),
        ({"lastChangeUSec": 999}, RecordDowngrade),
        ({"lastChangeUSec": None}, RecordDowngrade),
        ({"realName": "B"}, RecordMismatch),
        ({"privileged": {}}, RecordMismatch),
        ({"userName": "bob", "lastChangeUSec": 1001}, RecordMismatch),
        ({"realm": "example.com", "lastChangeUSec": 1001}, RecordMismatch),
        ({"aliases": ["al"], "lastChangeUSec": 1001}, None),
    ],
)
def test_which_updates_are_accepted(
    record: UserRecord, change: dict[str, Json], failure: type[HomeError] | None
) -> None:
    new = record.replaced(change)
    if failure is None:
        changes.check_update(record, new)
    else:
        with pytest.raises(failure, match=r"alice|bob"):
            changes.check_update(record, new)


def test_any_stamp_is_newer_than_none(record: UserRecord) -> None:
    unstamped = record.without("lastChangeUSec")
    changes.check_update(unstamped, record.replaced(lastChangeUSec=0))
    changes.check_update(unstamped, unstamped)
    with pytest.raises(RecordMismatch):
        changes.check_update(unstamped, unstamped.replaced(realName="B"))


def test_another_size_is_written_where_no_other_entry_overrules_it() -> None:
    broad: JsonObject = {"matchMachineId": ["a", "b"], "diskSize": 1}
    record = UserRecord({"userName": "anna", "perMachine": [{"matchMachineId": "a"}, broad]})
    once = changes.with_disk_size(record, "a", 2, 5)
    own = {"matchMachineId": ["a"], "diskSize": 2, "rebalanceWeight": 0}
    assert once.per_machine == [{"matchMachineId": "a"}, broad, own]
    assert once.last_change_usec == 5
    again = changes.with_disk_size(once, "a", 3, 6)
    assert again.per_machine == [{"matchMachineId": "a"}, broad, {**own, "diskSize": 3}]
