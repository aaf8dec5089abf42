"""What each figure has to reach, as data: one row of the table per figure.

A ratio is our median divided by systemd-homed's in the same run; where more is
better it is a rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """How a figure is shown: its sign, and what a sample is multiplied with."""

    MS = ("ms", 1000.0, 2)
    S = ("s", 1.0, 3)
    MIB = ("MiB", 1.0, 1)
    RATE = ("/s", 1.0, 1)
    TIMES = ("times", 1.0, 0)

    def show(self, value: float) -> str:
        """The value with its unit."""
        sign, factor, digits = self.value
        return f"{value * factor:.{digits}f} {sign}"


@dataclass(frozen=True)
class Goal:
    """One figure: its name in the samples, in words, and what it has to reach.

    ``ratio`` limits the ratio to systemd-homed, ``limit`` the figure itself; with
    ``more_is_better`` they are lower limits. With neither it is told and not judged.
    """

    key: str
    text: str
    unit: Unit
    ratio: float | None = None
    limit: float | None = None
    more_is_better: bool = False

    def describe(self) -> str:
        """What has to be reached, in words."""
        sign = "≥" if self.more_is_better else "≤"
        if self.ratio is not None:
            return f"{sign} {self.ratio:g} of it"
        return f"{sign} {self.unit.show(self.limit)}" if self.limit is not None else "-"

    def is_met(self, ours: float, ratio: float | None) -> bool | None:
        """Whether it is reached; None if there is nothing to judge."""
        value, bar = (ratio, self.ratio) if self.ratio is not None else (ours, self.limit)
        if value is None or bar is None:
            return None
        return value >= bar if self.more_is_better else value <= bar


GOALS = (
    Goal("check", "one password check, by itself", Unit.MS),
    Goal("create", "create a home", Unit.MS, ratio=1.0),
    Goal("activate", "activate, 10 files", Unit.MS, ratio=0.5),
    Goal("activate large", "activate, 100,000 files", Unit.MS, ratio=0.5),
    Goal("acquire inactive", "acquire, home inactive", Unit.MS, ratio=0.5),
    Goal("acquire active", "acquire, home active", Unit.MS, ratio=0.5),
    Goal("deactivate", "deactivate", Unit.MS, ratio=0.6),
    Goal("storm", "64 logins at once", Unit.RATE, ratio=1.9, more_is_better=True),
    Goal("false busy", "refused as busy, nobody inside", Unit.TIMES, limit=0.0),
    Goal("list", "ListHomes, 500 homes", Unit.MS, ratio=1.0),
    Goal("GetHomeByName", "GetHomeByName", Unit.MS, ratio=1.0),
    Goal("GetUserRecordByName", "GetUserRecordByName", Unit.MS, ratio=1.0),
    Goal("userdb kept", "user database, kept connection", Unit.MS, ratio=1.0),
    Goal("userdb new", "user database, new connection", Unit.MS, ratio=1.0),
    Goal("start", "start with 500 homes", Unit.S, limit=0.35),
    Goal("memory", "private memory, idle, 500 homes", Unit.MIB, limit=24.0),
    Goal("idle", "processor time in 10 s of idling", Unit.MS, limit=0.005),
    Goal("process", "homemgr list / homectl list, 500 homes", Unit.MS, limit=0.040),
    Goal("start many", "start with 5,000 homes", Unit.S),
    Goal("list many", "ListHomes, 5,000 homes", Unit.MS, limit=0.100),
    Goal("GetHomeByName many", "GetHomeByName, 5,000 homes", Unit.MS),
    Goal("GetUserRecordByName many", "GetUserRecordByName, 5,000 homes", Unit.MS),
    Goal("userdb kept many", "user database, kept, 5,000 homes", Unit.MS),
    Goal("userdb new many", "user database, new, 5,000 homes", Unit.MS),
    Goal("process many", "homemgr list, 5,000 homes", Unit.MS),
    Goal("memory many", "private memory, idle, 5,000 homes", Unit.MIB),
    Goal("idle many", "processor time in 10 s, 5,000 homes", Unit.MS, limit=0.005),
)
