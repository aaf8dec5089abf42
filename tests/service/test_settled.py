"""Updates that ask for what an update cannot do: refused, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service import people
from tests.service.site import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.jsontext import JsonObject
    from tests.service.site import Service

UID = 60123


def for_all(_machine_id: str, **fields: object) -> JsonObject:
    return people.record("sara", **fields)


def for_this_machine(machine_id: str, **fields: object) -> JsonObject:
    return people.record("sara", perMachine=[{"matchMachineId": machine_id, **fields}])


@pytest.fixture(scope="module")
def sara(service: Service) -> Service:
    """The service with a home whose record names none of what is settled about it."""
    service.create("sara", uid=UID)
    return service


@pytest.mark.parametrize("flags", [0, 1], ids=["both copies", "offline"])
@pytest.mark.parametrize("made", [for_all, for_this_machine])
@pytest.mark.parametrize(
    ("field", "wanted"),
    [("storage", "luks"), ("imagePath", "/home/elsewhere.homedir"), ("uid", UID + 1)],
)
def test_what_is_settled_is_not_changed(
    sara: Service, field: str, wanted: object, made: Callable[..., JsonObject], flags: int
) -> None:
    (machine_id,) = people.parse(people.text(sara.user_record("sara")["binding"]))  # type: ignore[arg-type]
    before = sara.site.digest()
    new = people.text(made(machine_id, **{field: wanted}))
    failure = sara.failure("UpdateHomeEx", "sa{sh}t", new, {}, flags)
    assert short(failure.name) == "NotSupported"
    assert f" to {wanted}: " in failure.message
    assert sara.site.digest() == before
    assert sara.call("GetHomeByName", "s", "sara")[0] == UID


def test_the_home_directory_of_a_home_in_use_is_not_changed(sara: Service) -> None:
    sara.activate("sara")
    new = people.text(people.record("sara", homeDirectory="/home/other"))
    assert sara.error("UpdateHome", "s", new) == "NotSupported"
    sara.deactivate("sara")


def test_what_is_asked_for_as_it_is_succeeds(sara: Service) -> None:
    asked = {"uid": UID, "storage": "directory", "location": "here"}
    sara.call("UpdateHome", "s", people.text(people.record("sara", **asked)))
    assert sara.user_record("sara")["location"] == "here"
