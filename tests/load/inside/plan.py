"""How much load: the numbers that both sides of a run agree on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of one run."""

    users: int = 200
    #: Who is active at the same time.
    workers: int = 12
    seconds: float = 600.0
    #: Malformed messages over the bus and over the user database socket, at most.
    messages: int = 60_000
    #: How often the service is killed; the last time well before the end.
    kills: int = 15
    seed: int = 1

    def to_json(self) -> str:
        """One word of a command line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` made."""
        return cls(**json.loads(text))


#: For every change of the code: everything once, in less than a minute.
SMALL = Plan(users=12, workers=6, seconds=24.0, messages=4_000, kills=3)
