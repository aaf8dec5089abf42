"""Every cell of the state table against org.freedesktop.home1's documented behaviour."""

from __future__ import annotations

import pytest

from homemgr import errors
from homemgr.daemon.states import TABLE, Job, Operation, Resting, Way, admit, wire_name

U, A, I, D = Resting.UNFIXATED, Resting.ABSENT, Resting.INACTIVE, Resting.DIRTY  # noqa: E741
AC, L, K = Resting.ACTIVE, Resting.LINGERING, Resting.LOCKED

#: Written again by hand from the interface, column by column: U A I D Ac L K.
EXPECTED = {
    Operation.ACTIVATE: "fixate HomeAbsent run run HomeAlreadyActive keep HomeLocked",
    Operation.AUTHENTICATE: "run HomeAbsent run run run run HomeLocked",
    Operation.FIXATE: "run HomeAbsent" + " HomeAlreadyFixated" * 5,
    Operation.DEACTIVATE: "HomeNotActive " * 4 + "run run HomeLocked",
    Operation.CREATE: "HomeExists run HomeExists HomeExists HomeBusy HomeBusy HomeBusy",
    Operation.REALIZE: "HomeExists run HomeExists HomeExists HomeBusy HomeBusy HomeBusy",
    Operation.REMOVE: "run run run run HomeBusy HomeBusy HomeLocked",
    Operation.UNREGISTER: "HomeUnfixated run run run HomeBusy HomeBusy HomeLocked",
    Operation.ADOPT: "run run run run HomeBusy HomeBusy HomeLocked",
    Operation.FREEZE: "HomeUnfixated HomeAbsent run run HomeBusy HomeBusy HomeLocked",
    Operation.UPDATE: "HomeUnfixated HomeAbsent run run run run HomeLocked",
    Operation.UPDATE_OFFLINE: "HomeUnfixated run run run run run HomeLocked",
    Operation.PASSWD: "HomeUnfixated HomeAbsent run run run run HomeLocked",
    Operation.SLOT: "HomeUnfixated HomeAbsent run run run run HomeLocked",
    Operation.RESIZE: "HomeUnfixated HomeAbsent run run run run HomeLocked",
    Operation.LOCK: "HomeNotActive " * 4 + "run run HomeLocked",
    Operation.UNLOCK: "HomeNotLocked " * 6 + "run",
    Operation.REFERENCE: "HomeNotActive HomeAbsent"
    + " HomeNotActive" * 2
    + " done done HomeLocked",
    Operation.REFERENCE_UNASKED: "HomeNotActive HomeAbsent activate activate done done HomeLocked",
    Operation.ACQUIRE: "fixate HomeAbsent activate activate authenticate authenticate unlock",
    Operation.RELEASE: "done done done done run run HomeLocked",
    Operation.RESTORE: "HomeUnfixated run run run HomeBusy HomeBusy HomeLocked",
    Operation.INSPECT: "run " * 7,
    Operation.CONVERT: "HomeUnfixated HomeAbsent run run HomeBusy HomeBusy HomeLocked",
    Operation.CONVERT_BACK: "HomeUnfixated run run run HomeBusy HomeBusy HomeLocked",
    Operation.LOSE: "run " * 7,
}
WAYS = {
    "fixate": Way.FIXATE_THEN_ACTIVATE,
    "run": Way.RUN,
    "keep": Way.KEEP,
    "done": Way.DONE,
    "activate": Way.ACTIVATE,
    "authenticate": Way.AUTHENTICATE,
    "unlock": Way.UNLOCK,
}
CELLS = [
    (operation, resting, cell)
    for operation, row in EXPECTED.items()
    for resting, cell in zip((U, A, I, D, AC, L, K), row.split(), strict=True)
]


@pytest.mark.parametrize(("operation", "resting", "cell"), CELLS)
def test_operation_in_state(operation: Operation, resting: Resting, cell: str) -> None:
    if cell in WAYS:
        assert admit(operation, resting, "alice") is WAYS[cell]
        return
    with pytest.raises(errors.BY_CLASS[cell]) as refused:
        admit(operation, resting, "alice")
    assert "alice" in refused.value.message


def test_every_operation_is_in_the_table() -> None:
    assert set(TABLE) == set(Operation) == set(EXPECTED)
    assert all(set(row) == set(Resting) for row in TABLE.values())


@pytest.mark.parametrize(
    ("resting", "job", "for_acquire", "name"),
    [
        (I, None, False, "inactive"),
        (AC, None, False, "active"),
        (L, None, False, "lingering"),
        (U, Job.FIXATE, False, "fixating"),
        (I, Job.ACTIVATE, False, "activating"),
        (I, Job.ACTIVATE, True, "activating-for-acquire"),
        (AC, Job.AUTHENTICATE, True, "authenticating-for-acquire"),
        (AC, Job.AUTHENTICATE, False, "authenticating-while-active"),
        (I, Job.AUTHENTICATE, False, "authenticating"),
        (AC, Job.PASSWD, False, "passwd-while-active"),
        (I, Job.UPDATE, False, "updating"),
        (AC, Job.DEACTIVATE, False, "deactivating"),
        (A, Job.CREATE, False, "creating"),
        (I, Job.REMOVE, False, "removing"),
    ],
)
def test_state_names_are_those_of_the_interface(
    resting: Resting,
    job: Job | None,
    for_acquire: bool,
    name: str,
) -> None:
    assert wire_name(resting, job, for_acquire=for_acquire) == name
