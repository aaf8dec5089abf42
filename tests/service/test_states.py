"""What every operation does in every state a home area can be in, by error name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.holders import sitting_in
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret, text
from tests.service.site import Service, Site, short, wait_until

Operation = Callable[[Service, str], object]


def newer(service: Service, name: str) -> str:
    """An update of the record, which an update may bring."""
    return text(people.record(name, realName="Someone Else"))


OPERATIONS: dict[str, Operation] = {
    "ActivateHome": lambda s, n: s.activate(n),
    "ActivateHomeIfReferenced": lambda s, n: s.call(
        "ActivateHomeIfReferenced", "ss", n, secret(PASSWORD)
    ),
    "AuthenticateHome": lambda s, n: s.call("AuthenticateHome", "ss", n, secret(PASSWORD)),
    "FixateHome": lambda s, n: s.call("FixateHome", "ss", n, secret(PASSWORD)),
    "DeactivateHome": lambda s, n: s.deactivate(n),
    "CreateHome": lambda s, n: s.create(n),
    "RealizeHome": lambda s, n: s.call("RealizeHome", "ss", n, secret(PASSWORD)),
    "RemoveHome": lambda s, n: s.call("RemoveHome", "s", n),
    "UpdateHome": lambda s, n: s.call("UpdateHome", "s", newer(s, n)),
    "UpdateHomeEx offline": lambda s, n: s.call("UpdateHomeEx", "sa{sh}t", newer(s, n), {}, 1),
    "ChangePasswordHome": lambda s, n: s.call(
        "ChangePasswordHome", "sss", n, secret(OTHER_PASSWORD), secret(PASSWORD)
    ),
    "ResizeHome": lambda s, n: s.call("ResizeHome", "sts", n, 1 << 30, secret(PASSWORD)),
    "LockHome": lambda s, n: s.call("LockHome", "s", n),
    "UnlockHome": lambda s, n: s.call("UnlockHome", "ss", n, secret(PASSWORD)),
    "RefHome": lambda s, n: s.ref(n).close(),
    "RefHomeUnrestricted": lambda s, n: s.ref(n, "RefHomeUnrestricted").close(),
    "AcquireHome": lambda s, n: s.acquire(n).close(),
    "ReleaseHome": lambda s, n: s.call("ReleaseHome", "s", n),
}

#: State -> what it refuses, and with which error. An empty name is success without effect.
REFUSED: dict[str, dict[str, str]] = {
    "unfixated": {
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "DeactivateHome": "HomeNotActive",
        "CreateHome": "UserNameExists",
        "RealizeHome": "HomeExists",
        "UpdateHome": "HomeUnfixated",
        "UpdateHomeEx offline": "HomeUnfixated",
        "ChangePasswordHome": "HomeUnfixated",
        "RefHome": "HomeNotActive",
        "RefHomeUnrestricted": "",
        "ReleaseHome": "",
        "ResizeHome": "HomeUnfixated",
        "LockHome": "HomeNotActive",
        "UnlockHome": "HomeNotLocked",
    },
    "absent": {
        "ActivateHome": "HomeAbsent",
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "AuthenticateHome": "HomeAbsent",
        "FixateHome": "HomeAbsent",
        "DeactivateHome": "HomeNotActive",
        "CreateHome": "UserNameExists",
        "UpdateHome": "HomeAbsent",
        "ChangePasswordHome": "HomeAbsent",
        "RefHome": "HomeAbsent",
        "RefHomeUnrestricted": "",
        "AcquireHome": "HomeAbsent",
        "ReleaseHome": "",
        "ResizeHome": "HomeAbsent",
        "LockHome": "HomeNotActive",
        "UnlockHome": "HomeNotLocked",
    },
    "inactive": {
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "FixateHome": "HomeAlreadyFixated",
        "DeactivateHome": "HomeNotActive",
        "CreateHome": "UserNameExists",
        "RealizeHome": "HomeExists",
        "RefHome": "HomeNotActive",
        "RefHomeUnrestricted": "",
        "ReleaseHome": "",
        "ResizeHome": "NotSupported",
        "LockHome": "HomeNotActive",
        "UnlockHome": "HomeNotLocked",
    },
    "active": {
        "ActivateHome": "HomeAlreadyActive",
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "FixateHome": "HomeAlreadyFixated",
        "CreateHome": "UserNameExists",
        "RealizeHome": "HomeBusy",
        "RemoveHome": "HomeBusy",
        "ResizeHome": "NotSupported",
        "LockHome": "NotSupported",
        "UnlockHome": "HomeNotLocked",
    },
    "lingering": {
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "FixateHome": "HomeAlreadyFixated",
        "DeactivateHome": "HomeBusy",
        "CreateHome": "UserNameExists",
        "RealizeHome": "HomeBusy",
        "RemoveHome": "HomeBusy",
        "ReleaseHome": "HomeBusy",
        "ResizeHome": "NotSupported",
        "LockHome": "NotSupported",
        "UnlockHome": "HomeNotLocked",
    },
    "busy": {
        "ActivateHome": "HomeBusy",
        "ActivateHomeIfReferenced": "HomeNotReferenced",
        "AuthenticateHome": "HomeBusy",
        "FixateHome": "HomeBusy",
        "DeactivateHome": "HomeBusy",
        "CreateHome": "UserNameExists",
        "RealizeHome": "HomeBusy",
        "RemoveHome": "HomeBusy",
        "UpdateHome": "HomeBusy",
        "ChangePasswordHome": "HomeBusy",
        "RefHomeUnrestricted": "",
        "ResizeHome": "HomeBusy",
        "LockHome": "HomeBusy",
        "UnlockHome": "HomeBusy",
    },
}
CELLS = [(state, member) for state, row in REFUSED.items() for member in row]


@pytest.fixture(scope="module")
def states(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A daemon with one home in each state, named after it."""
    # Long: what lingers shall stay so while the tests look at it.
    service = Service(new_site(GraceSec="600"))
    site = service.site
    with ExitStack() as stack:
        stack.callback(service.close)
        stack.callback(service.call, "DeactivateAllHomes")
        for name in ("absent", "inactive", "active", "lingering", "busy"):
            service.create(name)
        (site.base / "absent.homedir").rename(site.base / ".kept-absent")
        site.plant("unfixated")
        service.wait_for("absent", "absent")
        wait_for_home(service, "unfixated")
        for name in ("active", "lingering"):
            service.activate(name)
        stack.enter_context(sitting_in(service.path_of("lingering")))
        assert service.error("DeactivateHome", "s", "lingering") == "HomeBusy"
        yield service


def wait_for_home(service: Service, name: str) -> None:
    wait_until(lambda: name in service.states(), f"{name} to be found")


def answer(service: Service, member: str, name: str) -> str:
    """The error name, empty for success."""
    try:
        OPERATIONS[member](service, name)
    except BusError as error:
        return short(error.name)
    return ""


@pytest.mark.parametrize(("state", "member"), [c for c in CELLS if c[0] != "busy"])
def test_operation_is_refused_by_name(states: Service, state: str, member: str) -> None:
    assert answer(states, member, state) == REFUSED[state][member]
    # What lingers is tried again and again by itself.
    assert states.state(state) in (state, "deactivating" if state == "lingering" else state)


def test_operations_on_a_busy_home_fail_at_once_and_do_not_queue(states: Service) -> None:
    with states.paused():
        running = states.begin("AuthenticateHome", "ss", "busy", secret(PASSWORD))
        states.wait_for("busy", "authenticating")
        found = {member: answer(states, member, "busy") for member in REFUSED["busy"]}
        assert states.state("busy") == "authenticating"
    running.result()
    assert found == REFUSED["busy"]
