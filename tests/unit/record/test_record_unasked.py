"""Which homes need no secret, and which cannot do without."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID, OTHER_ID

from homemgr.errors import InvalidRecord
from homemgr.record import unasked
from homemgr.record.fields import UNASKED_ON
from homemgr.record.jsontext import Json, JsonObject
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

HERE = Machine(MACHINE_ID, "laptop")
NOW = 1_000


def effective(**fields: Json) -> UserRecord:
    return UserRecord({"userName": "alice", UNASKED_ON: [MACHINE_ID], **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {UNASKED_ON: MACHINE_ID},
        {UNASKED_ON: [OTHER_ID, MACHINE_ID]},
        {"storage": "directory"},
        {"binding": {MACHINE_ID: {"storage": "subvolume"}}},
        {"notBeforeUSec": NOW, "notAfterUSec": NOW},
    ],
)
def test_a_home_that_needs_none(fields: JsonObject) -> None:
    record = effective(**fields).on(HERE)
    assert unasked.is_allowed(record, NOW)
    unasked.check(record)


@pytest.mark.parametrize(
    "fields",
    [
        {UNASKED_ON: []},
        {UNASKED_ON: None},
        {UNASKED_ON: True},
        {UNASKED_ON: [1]},
        {UNASKED_ON: OTHER_ID},
        {"locked": True},
        {"notBeforeUSec": NOW + 1},
        {"notAfterUSec": NOW - 1},
        {"perMachine": [{"matchMachineId": MACHINE_ID, "locked": True}]},
    ],
)
def test_a_home_that_needs_one(fields: JsonObject) -> None:
    assert not unasked.is_allowed(effective(**fields).on(HERE), NOW)


def test_the_policy_of_one_machine_says_nothing_elsewhere() -> None:
    elsewhere = Machine(OTHER_ID, "laptop")
    assert not unasked.is_allowed(effective().on(elsewhere), NOW)
    unasked.check(effective(storage="luks").on(elsewhere))


def test_other_sections_do_not_set_it() -> None:
    """systemd-homed refuses fields that it does not know in a perMachine entry."""
    entry: JsonObject = {"matchMachineId": MACHINE_ID, UNASKED_ON: [MACHINE_ID]}
    local: JsonObject = {MACHINE_ID: {UNASKED_ON: [MACHINE_ID]}}
    for fields in ({"perMachine": [entry]}, {"binding": local}, {"status": local}):
        assert not unasked.is_allowed(effective(**{UNASKED_ON: [], **fields}).on(HERE), NOW)


@pytest.mark.parametrize("storage", ["luks", "fscrypt", "cifs"])
def test_what_has_a_key_is_not_opened_without_it(storage: str) -> None:
    for record in (
        effective(storage=storage),
        effective(binding={MACHINE_ID: {"storage": storage}}),
    ):
        assert not unasked.is_allowed(record.on(HERE), NOW)
        with pytest.raises(InvalidRecord, match=f"storage {storage}, which only its password"):
            unasked.check(record.on(HERE))
    with pytest.raises(InvalidRecord, match=storage):
        unasked.check(effective().on(HERE), storage)
