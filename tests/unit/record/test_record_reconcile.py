"""Host copy against embedded copy: every cell of the table, in every mode."""

from __future__ import annotations

import pytest
from record_samples import MACHINE_ID

from homemgr.errors import (
    HomeError,
    HostileHome,
    RecordDowngrade,
    RecordMismatch,
    SystemFailure,
    bus_name_of,
)
from homemgr.record.jsontext import Json
from homemgr.record.model import UserRecord
from homemgr.record.reconcile import Mode, Winner, reconcile

BINDING: dict[str, Json] = {"uid": 60001}


def record(stamp: int | None, real_name: str = "A") -> UserRecord:
    made = UserRecord({"userName": "alice", "realName": real_name})
    return made if stamp is None else made.replaced(lastChangeUSec=stamp)


def host(stamp: int | None, real_name: str = "A") -> UserRecord:
    made = record(stamp, real_name).with_binding(MACHINE_ID, BINDING)
    return made.with_status(MACHINE_ID, {"badAuthenticationCounter": 3})


# host stamp, embedded stamp, embedded name, mode -> winner, rewrite host, rewrite embedded
NEWER, EQUAL = Mode.REQUIRE_NEWER, Mode.REQUIRE_NEWER_OR_EQUAL
SETTLED = [
    (2, 1, "B", Mode.ANY, Winner.HOST, False, True),
    (2, 1, "B", NEWER, Winner.HOST, True, True),
    (2, 1, "B", EQUAL, Winner.HOST, True, True),
    (2, None, "B", Mode.ANY, Winner.HOST, False, True),
    (2, None, "B", NEWER, Winner.HOST, True, True),
    (2, None, "B", EQUAL, Winner.HOST, True, True),
    (2, 1, "A", Mode.ANY, Winner.HOST, False, True),
    (2, 2, "A", Mode.ANY, Winner.IDENTICAL, False, False),
    (2, 2, "A", EQUAL, Winner.IDENTICAL, True, False),
    (None, None, "A", Mode.ANY, Winner.IDENTICAL, False, False),
    (None, None, "A", EQUAL, Winner.IDENTICAL, True, False),
    (2, 2, "B", Mode.ANY, Winner.HOST, False, True),
    (2, 2, "B", NEWER, Winner.HOST, True, True),
    (2, 2, "B", EQUAL, Winner.HOST, True, True),
    (None, None, "B", Mode.ANY, Winner.HOST, False, True),
    (1, 2, "B", Mode.ANY, Winner.EMBEDDED, True, False),
    (1, 2, "A", Mode.ANY, Winner.EMBEDDED, True, False),
    (None, 1, "B", Mode.ANY, Winner.EMBEDDED, True, False),
    (None, 0, "B", Mode.ANY, Winner.EMBEDDED, True, False),
    (0, None, "B", Mode.ANY, Winner.HOST, False, True),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name", "mode", "winner", "rewrite_host", "rewrite_embedded"), SETTLED
)
def test_settled_cells(
    ours: int | None,
    theirs: int | None,
    name: str,
    mode: Mode,
    winner: Winner,
    rewrite_host: bool,
    rewrite_embedded: bool,
) -> None:
    given, embedded = host(ours), record(theirs, name)
    result = reconcile(given, embedded, mode)
    assert result.winner is winner
    assert (result.rewrite_host, result.rewrite_embedded) == (rewrite_host, rewrite_embedded)
    source = embedded if winner is Winner.EMBEDDED else given
    assert result.record.same_content(source)
    assert result.record.binding(MACHINE_ID) == BINDING
    assert result.record.status(MACHINE_ID) == {"badAuthenticationCounter": 3}


@pytest.mark.parametrize(
    ("ours", "theirs", "name", "mode", "failure"),
    [
        (2, 2, "A", NEWER, SystemFailure),
        (None, None, "A", NEWER, SystemFailure),
        (1, 2, "B", NEWER, RecordDowngrade),
        (None, 1, "B", NEWER, RecordDowngrade),
        (1, 2, "A", NEWER, RecordDowngrade),
        (1, 2, "B", EQUAL, RecordDowngrade),
        (None, 1, "B", EQUAL, RecordDowngrade),
    ],
)
def test_refused_cells(
    ours: int | None, theirs: int | None, name: str, mode: Mode, failure: type[HomeError]
) -> None:
    with pytest.raises(failure, match="alice"):
        reconcile(host(ours), record(theirs, name), mode)


def test_the_same_update_twice_answers_as_homed_does() -> None:
    with pytest.raises(SystemFailure) as caught:
        reconcile(host(2), record(2), Mode.REQUIRE_NEWER)
    assert bus_name_of(caught.value) == "System.Error.ESTALE"


def test_update_that_meets_a_newer_home_is_refused_not_dropped() -> None:
    # Defect 8 of homed 262: UpdateHome succeeded and silently kept the embedded record.
    with pytest.raises(RecordDowngrade, match="newer record than this machine") as caught:
        reconcile(host(5), record(7, "B"), Mode.REQUIRE_NEWER)
    assert "7" in caught.value.message
    assert "5" in caught.value.message


@pytest.mark.parametrize("change", [{"userName": "bob"}, {"realm": "example.com"}])
def test_another_users_record_is_refused(change: dict[str, Json]) -> None:
    with pytest.raises(RecordMismatch, match="expected that of alice"):
        reconcile(host(1), record(1).replaced(change))


@pytest.mark.parametrize("section", ["binding", "status", "secret"])
def test_local_sections_in_the_home_are_hostile(section: str) -> None:
    with pytest.raises(HostileHome, match=section):
        reconcile(host(1), record(2).replaced({section: {}}))


def test_the_signature_travels_with_its_content() -> None:
    ours = host(1).replaced(signature=[{"data": "ours"}])
    theirs = record(2).replaced(signature=[{"data": "theirs"}])
    assert reconcile(ours, theirs).record.data["signature"] == [{"data": "theirs"}]
    newer = ours.replaced(lastChangeUSec=3)
    assert reconcile(newer, theirs).record.data["signature"] == [{"data": "ours"}]


def test_the_result_never_holds_a_secret() -> None:
    given = host(2).replaced(secret={"password": ["pw"]})
    assert "secret" not in reconcile(given, record(1)).record.data
    assert "secret" not in reconcile(given, record(3)).record.data


def test_without_host_binding_there_is_none_in_the_result() -> None:
    result = reconcile(record(1), record(2))
    assert "binding" not in result.record.data
    assert "status" not in result.record.data
