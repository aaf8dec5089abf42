"""The order of a run: phases with their homes, and alternating turns of both services in each."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from . import turns
from .drive import Driver
from .homes import FIRST_UID, FIRST_UID_OF_MANY, Homes
from .samples import Notes
from .service import HOMED, OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plan import Plan
    from .samples import Samples
    from .service import Service

UID_RANGE = Path("/etc/homemgr/homemgr.conf")


class Run:
    """One measurement: what it was told and what it has found so far."""

    def __init__(self, plan: Plan) -> None:
        """Make keys and passwords; no service may run."""
        self._plan = plan
        self._homes = Homes()
        self._people = [f"login{number}" for number in range(plan.logins)]
        self.samples: Samples = defaultdict(list)

    def measure(self) -> None:
        """Everything."""
        self._logins()
        self._lists()
        self._many()

    # Phases

    def _logins(self) -> None:
        self._homes.wipe()
        self._homes.add("small", FIRST_UID, files=10)
        self._homes.add("large", FIRST_UID + 1, files=self._plan.files)
        for number, name in enumerate(self._people):
            self._homes.add(name, FIRST_UID + 2 + number)
        self._alternate("logins", self._turn_of_logins)

    def _lists(self) -> None:
        self._homes.wipe()
        self._homes.add_listed(self._plan.listed, FIRST_UID)
        self._alternate("lists", self._turn_of_lists)

    def _many(self) -> None:
        many = self._plan.many
        UID_RANGE.parent.mkdir(parents=True, exist_ok=True)
        UID_RANGE.write_text(f"[Home]\nUIDRange={FIRST_UID_OF_MANY}-{FIRST_UID_OF_MANY + many}\n")
        self._homes.wipe()
        self._homes.add_listed(many, FIRST_UID_OF_MANY)
        for number in range(self._plan.rounds):
            _say(f"many homes: round {number + 1} of {self._plan.rounds}")
            self._take_turn(OURS, self._turn_of_many, " many")

    def _alternate(self, phase: str, turn: Callable[[Service, Notes], None]) -> None:
        # A B A B...: what else happens on the machine hits both alike.
        for number in range(self._plan.rounds):
            for service in (OURS, HOMED):
                _say(f"{phase}: round {number + 1} of {self._plan.rounds}, {service.key}")
                self._take_turn(service, turn)

    # Turns

    def _take_turn(
        self, service: Service, turn: Callable[[Service, Notes], None], suffix: str = ""
    ) -> None:
        notes = Notes()
        notes.add("start", service.start())
        try:
            turn(service, notes)
        finally:
            service.stop()
        self.samples[service.key].append({f"{k}{suffix}": v for k, v in notes.turn.items()})

    def _turn_of_logins(self, _service: Service, notes: Notes) -> None:
        # How long it takes to start is asked with many homes, not with these.
        del notes.turn["start"]
        with Driver(self._homes.secret) as driver:
            turns.log_in(driver, self._homes, self._plan, self._people, notes)

    def _turn_of_lists(self, service: Service, notes: Notes) -> None:
        self._look_up(self._plan.listed, notes)
        turns.run_programs(service, self._plan, notes)
        turns.stay_idle(service, self._plan, notes)

    def _turn_of_many(self, service: Service, notes: Notes) -> None:
        self._look_up(self._plan.many, notes)
        turns.run_programs(service, self._plan, notes)
        turns.stay_idle(service, self._plan, notes)

    def _look_up(self, homes: int, notes: Notes) -> None:
        names = [f"user{number % homes}" for number in range(self._plan.lookups)]
        turns.settle(self._plan)
        with Driver(self._homes.secret) as driver:
            turns.look_up(driver, self._plan, names, notes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
