"""perMachine matching: every cell of "any of these holds"."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID, OTHER_ID

from homemgr.record.jsontext import JsonObject
from homemgr.record.machine import Machine

HERE = Machine(MACHINE_ID, "laptop")


@pytest.mark.parametrize(
    ("entry", "matches"),
    [
        ({}, False),
        ({"storage": "luks"}, False),
        ({"matchMachineId": MACHINE_ID}, True),
        ({"matchMachineId": MACHINE_ID.upper()}, True),
        ({"matchMachineId": "01234567-89ab-cdef-0123-456789abcdef"}, True),
        ({"matchMachineId": OTHER_ID}, False),
        ({"matchMachineId": [OTHER_ID, MACHINE_ID]}, True),
        ({"matchMachineId": []}, False),
        ({"matchNotMachineId": MACHINE_ID}, False),
        ({"matchNotMachineId": OTHER_ID}, True),
        ({"matchNotMachineId": [OTHER_ID, MACHINE_ID]}, False),
        ({"matchNotMachineId": []}, True),
        ({"matchHostname": "laptop"}, True),
        ({"matchHostname": "Laptop"}, False),
        ({"matchHostname": ["desk", "laptop"]}, True),
        ({"matchHostname": "desk"}, False),
        ({"matchNotHostname": "laptop"}, False),
        ({"matchNotHostname": "desk"}, True),
        ({"matchMachineId": OTHER_ID, "matchHostname": "laptop"}, True),
        ({"matchMachineId": OTHER_ID, "matchNotHostname": "laptop"}, False),
        ({"matchMachineId": OTHER_ID, "matchNotMachineId": OTHER_ID}, True),
        ({"matchMachineId": MACHINE_ID, "matchNotMachineId": MACHINE_ID}, True),
        ({"matchMachineId": 5}, False),
        ({"matchNotMachineId": [5]}, False),
        ({"matchMachineId": None}, False),
    ],
)
def test_entry_applies_if_any_match_holds(entry: JsonObject, matches: bool) -> None:
    assert HERE.matches(entry) is matches


@pytest.mark.parametrize(
    "hostname",
    [None, "", "(none)", "localhost", "LOCALHOST", "localhost.", "localhost.localdomain",
     "me.localhost", "me.localhost.localdomain."],
)  # fmt: skip
def test_a_name_every_machine_has_matches_nothing(hostname: str | None) -> None:
    machine = Machine(MACHINE_ID, hostname)
    assert not machine.has_hostname
    assert not machine.matches({"matchHostname": hostname or ""})
    assert machine.matches({"matchNotHostname": hostname or ""})


def test_real_host_names_are_not_taken_for_localhost() -> None:
    assert Machine(MACHINE_ID, "mylocalhost").has_hostname
    assert Machine(MACHINE_ID, "localhost.example.com").has_hostname
