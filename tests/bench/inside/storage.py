"""What homes of each storage take to make, to open and to close; the same for both services.

Arguments: the plan, and the storages that the file system of /home can have. Before a home is
closed much of the machine is in the caches, as where people work: what closing costs others is
part of what it costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from .drive import Driver
from .homes import RECORDS, RECORDS_ON_DISK, Homes
from .plan import Plan
from .samples import Notes
from .service import HOMED, OURS, make_room_for_both

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.record.jsontext import JsonObject

    from .samples import Samples

PAUSE_S = 0.05
#: Names of it are looked at.
CACHED = "/usr"


def main() -> None:
    """Measure turn by turn, first ours, then theirs."""
    plan, storages = Plan.from_json(sys.argv[1]), sys.argv[2].split(",")
    make_room_for_both()
    RECORDS_ON_DISK.mkdir(mode=0o700)
    subprocess.run(["mount", "--bind", str(RECORDS_ON_DISK), str(RECORDS)], check=True)
    homes = Homes()
    homes.wipe()
    samples: Samples = defaultdict(list)
    for number in range(plan.rounds):
        for service in (OURS, HOMED):
            print(f"round {number + 1} of {plan.rounds}, {service.key}", file=sys.stderr)
            service.start()
            notes = Notes()
            try:
                with Driver(homes.secret) as driver:
                    for storage in storages:
                        record: JsonObject = {**homes.new_record(""), "storage": storage}
                        turn(driver, record, plan, notes, in_between=_fill_caches)
                        if (service, storage) == (OURS, "fscrypt"):
                            _lock(driver, homes, storage, plan, notes)
            finally:
                service.stop()
            samples[service.key].append(notes.turn)
    json.dump(samples, sys.stdout)


def turn(
    driver: Driver,
    record: JsonObject,
    plan: Plan,
    notes: Notes,
    in_between: Callable[[], None] = lambda: None,
) -> None:
    """Make homes of the storage that ``record`` names, and use each again and again."""
    storage = str(record["storage"])
    for number in range(plan.creates):
        name = f"{storage}{number}"
        time.sleep(PAUSE_S)
        notes.add(f"create {storage}", driver.create({**record, "userName": name}))
        for _ in range(plan.repeats):
            time.sleep(PAUSE_S)
            notes.add(f"activate {storage}", driver.activate(name))
            in_between()
            taken = driver.deactivate(name)
            notes.extend(f"deactivate {storage}", taken)
        driver.remove(name)
    worst = max(notes.turn[f"deactivate {storage}"])
    notes.add(f"worst deactivate {storage}", worst)


def _lock(driver: Driver, homes: Homes, storage: str, plan: Plan, notes: Notes) -> None:
    """What only we can: systemd-homed locks no homes of this kind."""
    name = f"{storage}-locked"
    driver.create({**homes.new_record(name), "storage": storage})
    driver.activate(name)
    for _ in range(plan.repeats):
        _fill_caches()
        notes.add(f"lock {storage}", driver.lock(name))
        time.sleep(PAUSE_S)
        notes.add(f"unlock {storage}", driver.unlock(name))
    driver.deactivate(name)
    driver.remove(name)


def _fill_caches() -> None:
    for directory, _, names in os.walk(CACHED):
        for name in names:
            with suppress(OSError):
                os.stat(f"{directory}/{name}")


if __name__ == "__main__":
    main()
