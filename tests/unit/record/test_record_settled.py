"""Changes of what a machine settled about a home: refused unless they ask for what is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homemgr.errors import NotSupported
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.settled import check_settled

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

HERE = Machine("0123456789abcdef0123456789abcdef", "here")
BINDING: JsonObject = {
    "storage": "directory",
    "imagePath": "/home/.homemgr/anna.homedir",
    "uid": 60100,
    "homeDirectory": "/home/anna",
}
OTHER: JsonObject = {
    "storage": "luks",
    "imagePath": "/home/elsewhere.homedir",
    "uid": 60200,
    "homeDirectory": "/home/other",
}


def record(**fields: object) -> UserRecord:
    return UserRecord({"userName": "anna", **fields})  # type: ignore[dict-item]


def bound(**fields: object) -> UserRecord:
    return record(**fields).with_binding(HERE.id, BINDING)


@pytest.mark.parametrize("field", BINDING)
def test_another_value_is_refused_with_both(field: str) -> None:
    with pytest.raises(NotSupported) as refused:
        check_settled(bound(), record(**{field: OTHER[field]}), HERE)
    assert "anna" in refused.value.message
    assert f"from {BINDING[field]} to {OTHER[field]}" in refused.value.message


@pytest.mark.parametrize("field", ["storage", "imagePath", "uid"])
def test_another_value_for_this_machine_alone_is_refused(field: str) -> None:
    entry = {"matchMachineId": HERE.id, field: OTHER[field]}
    with pytest.raises(NotSupported):
        check_settled(bound(), record(perMachine=[entry]), HERE)


@pytest.mark.parametrize("field", BINDING)
def test_what_is_may_be_asked_for_and_what_was_asked_for_may_stay_or_go(field: str) -> None:
    check_settled(bound(), record(**{field: BINDING[field]}), HERE)
    came_so = bound(**{field: OTHER[field]})
    check_settled(came_so, record(**{field: OTHER[field]}, location="x"), HERE)
    check_settled(came_so, record(location="x"), HERE)


def test_other_machines_may_have_other_values() -> None:
    entry = {"matchNotMachineId": HERE.id, "storage": "luks", "uid": 60200}
    check_settled(bound(), record(perMachine=[entry]), HERE)


@pytest.mark.parametrize("field", BINDING)
def test_what_is_not_settled_yet_may_change(field: str) -> None:
    registered = record(**{field: BINDING[field]}).with_binding(HERE.id, {})
    check_settled(registered, record(**{field: OTHER[field]}), HERE)
