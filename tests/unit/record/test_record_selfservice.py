"""Self service: what is the user's to change, and the ways around it that must not work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_samples import MACHINE_ID, OTHER_ID, records

from homemgr.record import selfservice
from homemgr.record.fields import UNASKED_ON
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

HERE = Machine(MACHINE_ID, "laptop")
ENTRY: JsonObject = {"matchMachineId": MACHINE_ID, "storage": "directory", "shell": "/bin/sh"}
FOREIGN: JsonObject = {"matchMachineId": OTHER_ID, "shell": "/bin/sh"}
CURRENT: JsonObject = {
    "userName": "alice",
    "disposition": "regular",
    "realName": "Alice",
    "memberOf": ["users"],
    "lastChangeUSec": 1,
    "blobManifest": {"avatar": "0" * 64, "org.example": "1" * 64},
    "privileged": {"hashedPassword": ["h"], "org.example.key": 1},
    "perMachine": [ENTRY, FOREIGN],
}


def may(change: JsonObject, drop: tuple[str, ...] = (), current: JsonObject = CURRENT) -> bool:
    before = UserRecord(dict(current))
    return selfservice.may_update(before, before.without(*drop).replaced(change), HERE)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"realName": "Alice B.", "lastChangeUSec": 2, "lastPasswordChangeUSec": 2},
        {"emailAddress": "a@example.com", "timeZone": "UTC", "umask": 63, "environment": ["A=b"]},
        {"shell": "/bin/zsh"},
        {"privileged": {"hashedPassword": ["h"], "passwordHint": "x", "org.example.key": 1}},
        {"perMachine": [{**ENTRY, "shell": "/bin/zsh", "realName": "x"}, FOREIGN]},
        {"perMachine": [{k: v for k, v in ENTRY.items() if k != "shell"}, FOREIGN]},
        {"blobManifest": {"avatar": "2" * 64, "org.example": "1" * 64}},
        {"blobManifest": {"org.example": "1" * 64, "login-background": "3" * 64}},
        {"signature": [{"data": "other"}]},
    ],
)
def test_own_fields_may_be_changed(change: JsonObject) -> None:
    assert may(change)


def test_own_fields_may_be_dropped() -> None:
    assert may({}, drop=("realName", "lastChangeUSec"))


@pytest.mark.parametrize(
    "change",
    [
        {"memberOf": ["users", "wheel"]},
        {"memberOf": None},
        {"uid": 0},
        {"homeDirectory": "/root"},
        {"storage": "luks"},
        {"birthDate": "2000-01-01"},
        {"aliases": ["root"]},
        {"enforcePasswordPolicy": False},
        {"passwordChangeMaxUSec": None},
        {"mountNoSuid": False},
        {"org.homemgr.idmapPolicy": "homed"},
        {"org.example.new": 1},
        {"userName": "bob"},
        {"realm": "example.com"},
        {"selfModifiableFields": ["memberOf"]},
        {"selfModifiableFields": ["selfModifiableFields", "memberOf"], "memberOf": ["wheel"]},
        {"selfModifiablePrivileged": []},
        {"privileged": {"hashedPassword": ["h"]}},
        {"privileged": {"hashedPassword": ["new"], "org.example.key": 1}},
        {"privileged": {"org.example.key": 1}},
        {"privileged": {"hashedPassword": ["h"], "org.example.key": True}},
        {"blobManifest": {"avatar": "0" * 64, "org.example": "2" * 64}},
        {"blobManifest": {"avatar": "0" * 64}},
        {"blobManifest": []},
        {"perMachine": [ENTRY]},
        {"perMachine": [FOREIGN, ENTRY]},
        {"perMachine": [ENTRY, {**FOREIGN, "shell": "/bin/zsh"}]},
        {"perMachine": [{**ENTRY, "memberOf": ["wheel"]}, FOREIGN]},
        {"perMachine": [{**ENTRY, "matchMachineId": [MACHINE_ID, OTHER_ID]}, FOREIGN]},
        {"perMachine": [{**ENTRY, "matchMachineId": OTHER_ID}, FOREIGN]},
        {"perMachine": [ENTRY, FOREIGN, {"matchMachineId": MACHINE_ID}]},
        {"perMachine": [ENTRY, FOREIGN, {"matchHostname": "laptop", "memberOf": ["wheel"]}]},
        {"perMachine": [ENTRY, FOREIGN, {"shell": "/bin/zsh"}]},
        {"perMachine": [{**ENTRY, "blobManifest": {"org.example": "2" * 64}}, FOREIGN]},
        {"perMachine": [{**ENTRY, "selfModifiableFields": ["memberOf"]}, FOREIGN]},
    ],
)
def test_escapes_are_seen(change: JsonObject) -> None:
    assert not may(change)


@pytest.mark.parametrize("drop", ["memberOf", "disposition", "blobManifest", "perMachine"])
def test_dropping_what_is_not_ones_own_is_seen(drop: str) -> None:
    assert not may({}, drop=(drop,))


def test_an_empty_list_allows_nothing() -> None:
    current: JsonObject = {**CURRENT, "selfModifiableFields": []}
    assert not may({"realName": "x"}, current=current)
    with_hint: JsonObject = {"hashedPassword": ["h"], "org.example.key": 1, "passwordHint": "x"}
    assert may({"privileged": with_hint}, current=current)
    locked: JsonObject = {**CURRENT, "selfModifiablePrivileged": []}
    assert not may({"privileged": {"org.example.key": 1}}, current=locked)
    blobs: JsonObject = {**CURRENT, "selfModifiableBlobs": []}
    assert not may({"blobManifest": {"org.example": "1" * 64}}, current=blobs)


def test_the_administrators_list_replaces_the_default() -> None:
    current: JsonObject = {**CURRENT, "selfModifiableFields": ["memberOf"]}
    assert may({"memberOf": ["audio"]}, current=current)
    assert not may({"realName": "x"}, current=current)


def test_the_list_of_a_matching_entry_holds() -> None:
    entry: JsonObject = {"matchMachineId": MACHINE_ID, "selfModifiableFields": ["location"]}
    current: JsonObject = {**CURRENT, "perMachine": [entry]}
    assert may({"location": "x"}, current=current)
    assert not may({"realName": "x"}, current=current)


@pytest.mark.parametrize(
    "named",
    [
        *("privileged", "perMachine", "blobManifest", "userName", "binding", "signature"),
        "org.homemgr.activateWithoutSecretOn",
    ],
)
def test_a_list_that_names_a_section_does_not_open_it(named: str) -> None:
    current: JsonObject = {**CURRENT, "selfModifiableFields": [named]}
    changed: dict[str, Json] = {
        "privileged": {"org.example.key": 2},
        "perMachine": [FOREIGN],
        "blobManifest": {},
        "userName": "bob",
        "binding": {},
        "signature": [],
        "org.homemgr.activateWithoutSecretOn": [MACHINE_ID],
    }
    # What no comparison covers (binding, signature) is no one's to allow either.
    assert may({named: changed[named]}, current=current) is (named in ("binding", "signature"))


def test_true_is_not_one() -> None:
    current: JsonObject = {**CURRENT, "org.example.x": 1}
    assert not may({"org.example.x": True}, current=current)


@given(records())
def test_no_change_is_always_allowed(data: JsonObject) -> None:
    record = UserRecord(data)
    assert selfservice.may_update(record, UserRecord.parse(record.pretty()), HERE)


#: A few fields of each kind, with values that count; the first two of them are the owner's.
CHOICES: dict[str, list[Json]] = {
    "shell": ["/bin/sh", "/bin/zsh"],
    "location": ["here", "there"],
    "memberOf": [["users"], ["wheel"]],
    "storage": ["directory", "luks"],
    "locked": [True, False],
    "selfModifiableFields": [["shell", "location"], ["shell", "location", "memberOf"]],
    UNASKED_ON: [[MACHINE_ID], [OTHER_ID]],
}
MATCHES: list[JsonObject] = [
    {"matchMachineId": MACHINE_ID},
    {"matchMachineId": OTHER_ID},
    {"matchHostname": "laptop"},
    {"matchNotMachineId": OTHER_ID},
    {},
]
MEMBERS = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHOICES.items()})


@st.composite
def changes(draw: st.DrawFn) -> tuple[UserRecord, UserRecord]:
    """A record and a change of it: one or two members anywhere, dropped or with other values."""
    matches = draw(st.lists(st.sampled_from(MATCHES), max_size=2))
    before = [draw(MEMBERS) for _ in range(len(matches) + 1)]
    after = [dict(members) for members in before]
    for _ in range(draw(st.integers(1, 2))):
        members, name = draw(st.sampled_from(after)), draw(st.sampled_from([*CHOICES]))
        members.pop(name, None)
        if draw(st.booleans()):
            members[name] = draw(st.sampled_from(CHOICES[name]))

    def record(sections: list[dict[str, Json]]) -> UserRecord:
        entries: list[Json] = [
            {**match, **members} for match, members in zip(matches, sections[1:], strict=True)
        ]
        return UserRecord({"userName": "alice", **sections[0], "perMachine": entries})

    return record(before), record(after)


@given(changes())
def test_whatever_is_allowed_changes_nothing_else(pair: tuple[UserRecord, UserRecord]) -> None:
    """Here and on any other machine, and what may be changed next time stays the same."""
    current, new = pair
    if not selfservice.may_update(current, new, HERE):
        return
    for machine in (HERE, Machine(OTHER_ID, "laptop"), Machine("3" * 32, "desktop")):
        before, after = current.on(machine), new.on(machine)
        allowed = set(current.on(HERE).self_modifiable_fields) - {UNASKED_ON}
        for name in CHOICES.keys() - allowed:
            assert after.get(name) == before.get(name)
