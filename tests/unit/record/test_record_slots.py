"""Slots: names over hashes, that come and go without each other."""

from __future__ import annotations

import pytest

from homemgr.errors import InvalidArgs, LastSlot, NoSuchSlot, SlotExists
from homemgr.record import changes, slots
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.model import UserRecord
from homemgr.record.slots import KINDS, MAX_SLOTS, PASSWORD, RECOVERY_KEY

NAMES = "org.homemgr.slots"


def key(hashed: str) -> JsonObject:
    return {"type": "modhex64", "hashedPassword": hashed}


def token(hashed: str, uri: str) -> JsonObject:
    return {"uri": uri, "data": "AA==", "hashedPassword": hashed}


def record(privileged: JsonObject, **members: Json) -> UserRecord:
    return UserRecord({"userName": "alice", "privileged": privileged, **members})


FULL = record(
    {
        "hashedPassword": ["h1", "h2", "h3"],
        "recoveryKey": [key("r1")],
        "pkcs11EncryptedKey": [token("t1", "pkcs11:a"), token("t2", "pkcs11:b")],
        "org.example.kept": 1,
        NAMES: {"work": "h2", "gone": "h9", "password": "h1", "no/name": "h3", "card": "t2"},
    },
    recoveryKeyType=["modhex64"],
    pkcs11TokenUri=["pkcs11:a", "pkcs11:b"],
)


def names_in(of: UserRecord) -> list[str]:
    return [slot.name for slot in slots.listed(of)]


def test_what_has_no_name_is_called_by_kind_and_number() -> None:
    # A map with a name that cannot be one is read as homed reads a bad field: not at all.
    assert names_in(FULL) == [
        *("password", "password-2", "password-3"), "recovery-key", "pkcs11", "pkcs11-2"
    ]  # fmt: skip
    privileged = {**FULL.section("privileged"), NAMES: {"work": "h2", "password": "h1"}}
    assert names_in(record(privileged))[:3] == ["password", "work", "password-2"]
    assert names_in(record({"hashedPassword": "h"})) == ["password"]
    assert names_in(record({"hashedPassword": 7, NAMES: []})) == []


def test_a_slot_is_added_replaced_and_removed_without_the_others() -> None:
    one = record({"hashedPassword": ["h1"], "org.example.kept": 1})
    two = slots.with_slot(one, "spare", RECOVERY_KEY, key("r1"))
    assert two.data["recoveryKeyType"] == ["modhex64"]
    three = slots.with_slot(two, "work", PASSWORD, "h2")
    assert names_in(three) == ["password", "work", "spare"]
    other = slots.with_slot_replaced(three, slots.find(three, "spare"), key("r2"))
    assert names_in(other) == names_in(three)
    assert slots.find(other, "spare").hashed == "r2"
    assert other.data["recoveryKeyType"] == ["modhex64"]
    left = slots.without_slot(other, slots.find(other, "password"))
    assert left.section("privileged") == {
        "hashedPassword": ["h2"],
        "recoveryKey": [key("r2")],
        "org.example.kept": 1,
        NAMES: {"work": "h2", "spare": "r2"},
    }
    last = slots.without_slot(left, slots.find(left, "spare"))
    assert "recoveryKeyType" not in last.data
    with pytest.raises(LastSlot, match="alice"):
        slots.without_slot(last, slots.find(last, "work"))


def test_what_is_told_of_slots_goes_with_the_last_that_it_fits() -> None:
    left = slots.without_slot(FULL, slots.find(FULL, "pkcs11"))
    assert left.data["pkcs11TokenUri"] == ["pkcs11:b"]
    assert left.data["recoveryKeyType"] == ["modhex64"]
    twice = slots.with_slot(FULL, "second", RECOVERY_KEY, key("r2"))
    assert twice.data["recoveryKeyType"] == ["modhex64"] * 2
    once = slots.without_slot(twice, slots.find(twice, "second"))
    assert once.data["recoveryKeyType"] == ["modhex64"]
    alike = slots.with_slot(FULL, "third", KINDS["pkcs11"], token("t3", "pkcs11:a"))
    assert alike.data["pkcs11TokenUri"] == ["pkcs11:a", "pkcs11:b"]
    assert slots.without_slot(alike, slots.find(alike, "pkcs11")).data == {
        **alike.data,
        "privileged": {
            **alike.section("privileged"),
            "pkcs11EncryptedKey": [token("t2", "pkcs11:b"), token("t3", "pkcs11:a")],
        },
    }


def test_a_test_of_one_slot_knows_no_other() -> None:
    alone = slots.alone(FULL, slots.find(FULL, "recovery-key"))
    assert alone.section("privileged") == {"recoveryKey": [key("r1")]}


@pytest.mark.parametrize(
    "name",
    ["", "-x", "a/b", "a b", "ä", "x" * 33, *KINDS, "password-2", "recovery-key-17", "fido2-3"],
)
def test_names_that_slots_may_not_have(name: str) -> None:
    with pytest.raises(InvalidArgs, match="not allowed"):
        slots.check_new_name(FULL, name)


@pytest.mark.parametrize("name", ["x", "Work.2", "password2", "recovery-keys", "x" * 32])
def test_names_that_slots_may_have(name: str) -> None:
    slots.check_new_name(FULL, name)


def test_names_are_given_once_and_slots_are_not_endless() -> None:
    one = slots.with_slot(record({"hashedPassword": ["h1"]}), "work", PASSWORD, "h2")
    with pytest.raises(SlotExists, match="work"):
        slots.check_new_name(one, "work")
    many: list[Json] = [f"h{number}" for number in range(MAX_SLOTS)]
    with pytest.raises(SlotExists, match="no more"):
        slots.check_new_name(record({"hashedPassword": many}), "work")
    with pytest.raises(NoSuchSlot, match="there are: password, work"):
        slots.find(one, "home")


def test_a_password_change_keeps_what_has_a_name() -> None:
    one = record({"hashedPassword": ["h1", "h2", "h3"], NAMES: {"work": "h2"}})
    changed = changes.with_new_password(one, ["n1", "n2"], 5)
    assert changed.section("privileged")["hashedPassword"] == ["n1", "n2", "h2"]
    assert names_in(changed) == ["password", "password-2", "work"]


def test_only_the_password_without_a_name_ages() -> None:
    one = record(
        {"hashedPassword": ["h1", "h2"], NAMES: {"work": "h2"}},
        passwordChangeNow=True,
        lastPasswordChangeUSec=1,
    )
    work = changes.with_slot_replaced(one, slots.find(one, "work"), "n2", 9)
    assert work.data["passwordChangeNow"]
    assert (work.last_change_usec, work.last_password_change_usec) == (9, 1)
    main = changes.with_slot_replaced(one, slots.find(one, "password"), "n1", 9)
    assert "passwordChangeNow" not in main.data
    assert main.last_password_change_usec == 9
    assert main.section("privileged")["hashedPassword"] == ["n1", "h2"]
