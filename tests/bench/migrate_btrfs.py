"""The measurement of migrations from btrfs to btrfs, in turns with its own send and receive.

The same home as in `migrate`, as a subvolume. The rival is what people write scripts with: a
read-only snapshot, sent to the other machine as the difference to the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.world import machines, users
from tests.world.box import Box
from tests.world.users import User

from .migrate import (
    IMAGE,
    OFFLINE_S,
    Sample,
    Samples,
    Size,
    edit,
    fill,
    listed,
    measure_offline,
    migrate,
    wire_bytes,
)
from .table import VERDICTS, aligned

RIVAL = "/home/rival"


def measure(size: Size) -> Samples:
    """Boot, fill a home and let both ways take turns."""
    samples = Samples({})
    with (
        Box(home_size="10G", file_system="btrfs", is_disk=True) as here,
        Box(home_size="10G", file_system="btrfs", is_disk=True) as there,
        machines.wired(here, there),
    ):
        alice = users.create(here, "--storage=subvolume")
        fill(here.path(IMAGE.format(alice.name)), size)
        for number in range(1, size.rounds + 1):
            _Turn(here, there, alice, samples).run(size, number)
        samples.offline_s = measure_offline(here, there, alice)
    return samples


class _Turn:
    """Everything once."""

    def __init__(self, here: Box, there: Box, alice: User, samples: Samples) -> None:
        self._here, self._there, self._alice, self._samples = here, there, alice, samples
        self._image = IMAGE.format(alice.name)
        #: The snapshot that the other machine has.
        self._sent = ""

    def run(self, size: Size, number: int) -> None:
        """First copies, refreshes without a change, and with one in a hundred changed."""
        for box in (self._here, self._there):
            box.run(["mkdir", "-p", RIVAL])
        for what in ("first copy", "no change", "1 % changed"):
            if what == "1 % changed":
                edit(self._here.path(self._image), size, number)
            self._go(what, "btrfs send", self._btrfs)
            self._go(what, "homemgr", self._ours)
        for box in (self._here, self._there):
            box.run(["sh", "-c", f"btrfs -q subvolume delete {RIVAL}/*"])
            box.run(["homemgr", "transfers", "forget", self._alice.name, "--remove"], check=False)

    def _go(self, what: str, who: str, copy: Callable[[], object]) -> None:
        before, started = wire_bytes(self._here), time.monotonic()
        copy()
        passed, sent = time.monotonic() - started, wire_bytes(self._here) - before
        by_who = self._samples.runs.setdefault(what, {})
        by_who.setdefault(who, []).append(Sample(passed, sent))

    def _btrfs(self) -> None:
        new = f"{RIVAL}/{time.monotonic_ns()}"
        since = f"-p {self._sent}" if self._sent else ""
        command = (
            f"btrfs -q subvolume snapshot -r {self._image} {new} && btrfs -q send {since} {new}"
            f" | ssh {self._there.name} btrfs -q receive {RIVAL}"
        )
        self._here.run(["bash", "-o", "pipefail", "-c", command], timeout=600)
        self._sent = new

    def _ours(self) -> None:
        migrate(self._here, self._there, self._alice, "--keep")


def verdicts(samples: Samples) -> dict[str, bool]:
    """Each aim in words, and whether it is met."""
    offline = samples.offline_s
    return {f"offline {offline:.2f} s, aim {OFFLINE_S} s": offline <= OFFLINE_S}


def render(samples: Samples) -> str:
    """Two tables for people."""
    judged = [(text, VERDICTS[is_met]) for text, is_met in verdicts(samples).items()]
    return "\n\n".join((listed(samples.runs), aligned(judged)))


def is_met(samples: Samples) -> bool:
    """Whether all aims are."""
    return all(verdicts(samples).values())
