"""What one service does in its turn, noted in seconds, MiB or logins per second.

The same for both services; knows neither phases nor which service it is.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, TypeVar

from homemgr import crypt

from .drive import Driver, UserDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from .homes import Homes
    from .plan import Plan
    from .samples import Notes
    from .service import Service

T = TypeVar("T")

MIB = 1 << 20
#: Between two operations on one home: people come one by one, many at once are the storm.
PAUSE_S = 0.05
#: After a start both services still tidy up and fill caches.
SETTLE_S = 2.0


def log_in(driver: Driver, homes: Homes, plan: Plan, people: list[str], notes: Notes) -> None:
    """One home again and again, many homes at once, new homes."""
    # The first use of everything is slow in either service and no figure of its own.
    driver.activate("small")
    driver.deactivate("small")
    for _ in range(plan.repeats):
        notes.add("check", _check_s(homes))
        _use_small(driver, notes)
        notes.add("activate large", _unhurried(lambda: driver.activate("large")))
        _unhurried(lambda: driver.deactivate("large"))
    notes.add("storm", driver.storm(people))
    _create(driver, homes, plan, notes)
    notes.add("false busy", driver.false_busy)


def _check_s(homes: Homes) -> float:
    """One password check: below this no service can log anybody in."""
    start = time.perf_counter()
    assert crypt.verify(homes.password, homes.password_hash)
    return time.perf_counter() - start


def _use_small(driver: Driver, notes: Notes) -> None:
    notes.add("activate", _unhurried(lambda: driver.activate("small")))
    for what in ("acquire active", "acquire inactive"):
        taken, reference = _unhurried(lambda: driver.acquire("small"))
        notes.add(what, taken)
        # With the reference still held: a dropped one would start a deactivation of its own.
        notes.extend("deactivate", _unhurried(lambda: driver.deactivate("small")))
        reference.close()


def _unhurried(operation: Callable[[], T]) -> T:
    time.sleep(PAUSE_S)
    return operation()


def _create(driver: Driver, homes: Homes, plan: Plan, notes: Notes) -> None:
    names = [f"new{number}" for number in range(plan.creates)]
    for record in map(homes.new_record, names):
        time.sleep(PAUSE_S)
        notes.add("create", driver.create(record))
    for name in names:
        driver.remove(name)


def look_up(driver: Driver, plan: Plan, names: list[str], notes: Notes) -> None:
    """Lists and look-ups, over the bus and over the user database socket."""
    notes.extend("list", [driver.list_homes() for _ in range(plan.lists)])
    for member in ("GetHomeByName", "GetUserRecordByName"):
        notes.extend(member, [driver.lookup(member, name) for name in names])
    database = UserDatabase()
    notes.extend("userdb kept", [database.lookup(name) for name in names])
    database.close()
    notes.extend("userdb new", [database.lookup_anew(name) for name in names])


def run_programs(service: Service, plan: Plan, notes: Notes) -> None:
    """The command line's list, as whole processes."""
    argv = [service.program, "list"]
    for _ in range(plan.processes):
        start = time.perf_counter()
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        notes.add("process", time.perf_counter() - start)


def settle(plan: Plan) -> None:
    """Let a service that was just started or used come to rest."""
    time.sleep(min(SETTLE_S, plan.idle_s))


def stay_idle(service: Service, plan: Plan, notes: Notes) -> None:
    """Memory, and processor time while nobody asks for anything."""
    settle(plan)
    notes.add("memory", service.private_bytes() / MIB)
    before = service.cpu_s()
    time.sleep(plan.idle_s)
    notes.add("idle", service.cpu_s() - before)
