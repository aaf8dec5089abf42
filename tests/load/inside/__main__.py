"""Runs the load in the box. Argument: the plan. What was found goes to standard output as JSON."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from random import Random

from homemgr.wire.client import Client
from homemgr.wire.messages import BusError

from . import fuzz, people, service
from .plan import Plan
from .users import Crowd, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future

BASE = Path("/home/.homemgr")
RUNTIME = Path("/run/systemd/home")
REST_TIMEOUT_S = 120.0
STUCK_S = 180.0
POLL_S = 0.1
#: When the last kill is over, and when the first look at memory is taken, in parts of the time.
LAST_KILL, FIRST_LOOK = 0.4, 0.6


def main() -> None:
    """All of it."""
    plan = Plan.from_json(sys.argv[1])
    # Who hangs is to say where.
    faulthandler.dump_traceback_later(plan.seconds + STUCK_S)
    # A fuzzer is a fresh process each time: one of them gives up its rights.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(3, mp_context=context, max_tasks_per_child=1) as fuzzers,
        Client() as client,
    ):
        for number in range(plan.users):
            call(client, "CreateHome", "s", json.dumps(people.record(people.name_of(number))))
        _say("begin")
        json.dump(_run(plan, fuzzers), sys.stdout)


def _run(plan: Plan, fuzzers: ProcessPoolExecutor) -> dict[str, object]:
    running = service.Service()
    crowd = Crowd(plan.users, running)
    rng = Random(plan.seed)
    start = time.monotonic()
    with ThreadPoolExecutor(plan.workers) as workers:
        lives = [workers.submit(crowd.live, plan.seed + n) for n in range(plan.workers)]
        try:
            answers = _Answers(_fuzz(fuzzers, plan, crowd, start + FIRST_LOOK * plan.seconds))
            for number in range(plan.kills):
                _sleep_until(
                    start + LAST_KILL * plan.seconds * (number + rng.random()) / plan.kills
                )
                _say(f"kill {number + 1}")
                running.kill(workers_too=rng.random() < 0.5)
            _sleep_until(start + FIRST_LOOK * plan.seconds)
            _say("first rest")
            crowd.pause()
            answers.collect()
            first = _look(crowd)
            # Whatever coming to rest took, there is as much time again.
            end = time.monotonic() + (1 - FIRST_LOOK) * plan.seconds
            crowd.may_go.set()
            answers.add(_fuzz(fuzzers, plan, crowd, end))
            _sleep_until(end)
            _say("second rest")
            crowd.pause()
            answers.collect()
            second = _look(crowd)
        finally:
            # Also when something broke off here: workers end no other way.
            crowd.is_over.set()
        for life in lives:
            life.result()
    return {
        "done": crowd.done,
        "answers": answers.all,
        "faults": crowd.faults,
        "first": first,
        "second": second,
        "lost": _lost(crowd),
        "troubles": service.troubles(),
        "restarts": service.restarts(),
        "check": _checked(),
    }


class _Answers:
    """What fuzzers were told, once they are done."""

    def __init__(self, running: dict[str, Future[Counter[str]]]) -> None:
        self.all: dict[str, Counter[str]] = {}
        self._running = running

    def add(self, running: dict[str, Future[Counter[str]]]) -> None:
        """More of them."""
        self._running = running

    def collect(self) -> None:
        """Wait until they are done."""
        for who, future in self._running.items():
            self.all[who] = self.all.get(who, Counter()) + future.result()


def _fuzz(
    fuzzers: ProcessPoolExecutor, plan: Plan, crowd: Crowd, until: float
) -> dict[str, Future[Counter[str]]]:
    """Half of the messages each time; monotonic time is the same in every process."""
    share, seed = plan.messages // 6, plan.seed + int(until)
    root, names = list(fuzz.FUZZ_NAMES), crowd.names
    return {
        "root": fuzzers.submit(fuzz.fuzz_bus, seed, 0, root, share, until),
        "stranger": fuzzers.submit(fuzz.fuzz_bus, seed + 1, fuzz.NOBODY, names, share, until),
        "userdb": fuzzers.submit(fuzz.fuzz_userdb, seed + 2, names, share, until),
    }


def _say(what: str) -> None:
    print(f"{time.strftime('%T')} {what}", file=sys.stderr, flush=True)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _look(crowd: Crowd) -> dict[str, object]:
    """Bring everything to rest and see what the service holds then."""
    _wait_for_rest()
    _remove_strangers(crowd)
    _wait_for_rest()
    return {
        "states": Counter(service.states().values()),
        "descriptors": service.descriptors(),
        "processes": service.processes(),
        "memory": service.memory_bytes(),
        "mounts": [line.split()[1] for line in _mounts() if line.split()[1].startswith("/home/")],
        "references": sorted(found.name for found in RUNTIME.glob("*-suspend")),
    }


def _wait_for_rest() -> None:
    """Until no home is in use; what is still wrong after a while is for the look to show."""
    deadline = time.monotonic() + REST_TIMEOUT_S
    while time.monotonic() < deadline:
        with Client() as client:
            try:
                call(client, "DeactivateAllHomes", "")
            except BusError as error:
                _say(f"not all can go yet: {error}")
        used = set(service.states().values()) - {"inactive", "absent", "unfixated"}
        if not used and not list(RUNTIME.glob("*-suspend")):
            return
        time.sleep(POLL_S)


def _remove_strangers(crowd: Crowd) -> None:
    """Homes and keys that malformed calls of root made, which were well-formed then."""
    with Client() as client:
        for name in service.states():
            if name not in crowd.names:
                for member in ("RemoveHome", "UnregisterHome"):
                    try:
                        call(client, member, "s", name)
                    except BusError as error:
                        _say(f"{member} of {name}: {error}")


def _mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def _lost(crowd: Crowd) -> list[str]:
    """Users who do not get in any more, and lines of their logs that are not there."""
    lost = []
    with Client() as client:
        for name in crowd.names:
            try:
                call(client, "AuthenticateHome", "ss", name, people.SECRET)
            except BusError as error:
                lost.append(f"{name}: {error}")
            log = BASE / f"{name}.homedir" / "log"
            found = set(log.read_text().split()) if log.exists() else set()
            lost += [f"{name}: line {line}" for line in sorted(crowd.written[name] - found)]
            if os.lstat(log.parent).st_uid != fuzz.NOBODY:
                lost.append(f"{name}: owner")
    return lost


def _checked() -> list[object]:
    """What `homemgr check` finds."""
    argv = ["/opt/homemgr/bin/homemgr", "check", "--json=short"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [done.returncode, done.stdout, done.stderr]


if __name__ == "__main__":
    threading.current_thread().name = "load"
    main()
