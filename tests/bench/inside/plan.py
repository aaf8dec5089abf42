"""How much is measured: the numbers that both sides of a run agree on. Knows no service."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Plan:
    """Rounds, sizes and repetitions of one run."""

    #: Turns of each service; a turn of the one is followed by a turn of the other.
    rounds: int = 5
    #: Homes logged in to at once.
    logins: int = 64
    #: Activations and acquisitions of one home in a turn, and homes created in it.
    repeats: int = 5
    creates: int = 4
    #: Files in the largest home.
    files: int = 100_000
    #: Homes that both services list (systemd-homed takes no more than 500), and we alone.
    listed: int = 500
    many: int = 5000
    #: ListHomes, look-ups and whole processes in a turn.
    lists: int = 20
    lookups: int = 200
    processes: int = 10
    #: How long an idle service is watched.
    idle_s: float = 10.0

    def to_json(self) -> str:
        """One word of a command line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` made."""
        return cls(**json.loads(text))


#: Everything once, with numbers that prove only that the measurement works.
SMALL = Plan(
    rounds=1,
    logins=4,
    repeats=1,
    creates=1,
    files=100,
    listed=20,
    many=40,
    lists=2,
    lookups=5,
    processes=1,
    idle_s=0.3,
)
