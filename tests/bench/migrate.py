"""The measurement of migrations: two boxes with a wire, our command and what people use instead.

All copy the same generated home over the same ssh, in turns. The bytes are those of the wire.
Each way has machines and file systems of its own: who writes after others pays for what they left,
such as inodes that ext4 does not give again for a minute, and disk space that its image lacks yet.
Those file systems are written to like disks, past the memory of the machine that runs both: only
homemgr waits until what it copied is on disk, and would pay for the second copy in memory alone.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests import homes
from tests.world import machines, users
from tests.world.box import Box, wait_for
from tests.world.users import User

from .table import VERDICTS, aligned

IMAGE = "/home/.homemgr/{}.homedir"
RIVAL = "/home/rival"
#: By its side the same with what homemgr waits for: that all of it is on disk.
TAR, TAR_ON_DISK = "tar | zstd -1", "tar | zstd -1, sync"
MEMORY_BYTES = 200 << 20
OFFLINE_S = 2.0


@dataclass(frozen=True)
class Size:
    """How large the home is, and how often all is measured."""

    small_files: int = 58_000
    large_files: int = 40
    large_bytes: int = 28 << 20
    rounds: int = 3


SMALL_HOME = Size(small_files=300, large_files=3, large_bytes=3 << 20, rounds=1)


@dataclass(frozen=True)
class Sample:
    """One run of one way to copy."""

    seconds: float
    bytes: int


#: By what is done, then by who does it.
Runs = dict[str, dict[str, list[Sample]]]


@dataclass
class Samples:
    """All that was measured."""

    runs: Runs
    offline_s: float = 0.0
    memory_bytes: int = 0


def measure(size: Size) -> Samples:
    """Boot, fill a home and let all ways take turns, each on machines of its own."""
    samples = Samples({})
    for _ in range(size.rounds):
        for who in (TAR, TAR_ON_DISK, "rsync -z", "rsync"):
            with _turn(size, samples) as turn:
                turn.first_copy(who)
        with _turn(size, samples) as turn:
            turn.first_copy("homemgr")
            turn.refreshes(size)
            turn.offline()
    return samples


@contextmanager
def _turn(size: Size, samples: Samples) -> Iterator[_Turn]:
    """Two machines just booted, and a home on the first."""
    with (
        Box(home_size="10G", is_disk=True) as here,
        Box(home_size="10G", is_disk=True) as there,
        machines.wired(here, there),
    ):
        alice = users.create(here)
        fill(here.path(IMAGE.format(alice.name)), size)
        yield _Turn(here, there, alice, samples)


# -- the home ------------------------------------------------------------------------------


def fill(top: Path, size: Size) -> None:
    """A home like people's: many small files of text and noise, some large ones."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(500)]
    for number in range(size.small_files):
        directory = top / f"work/{number % 97:02}/{number % 13:02}"
        if number < 97 * 13:
            directory.mkdir(parents=True, exist_ok=True)
        length = min(int(chance.expovariate(1 / 8000)), 200_000)
        text = b" ".join(chance.choices(words, k=length // 16))
        (directory / f"file-{number}").write_bytes(text + chance.randbytes(length // 2))
    (top / "media").mkdir()
    for number in range(size.large_files):
        half = chance.randbytes(size.large_bytes // 2)
        (top / f"media/{number}").write_bytes(half + b"".join(chance.choices(words, k=1000)) + half)
    homes.give_away(top)


def edit(top: Path, size: Size, number: int) -> None:
    """Change one file in a hundred, a block of a large one, and rename another."""
    chance = random.Random(number)
    for _ in range(max(1, size.small_files // 100)):
        file = chance.randrange(size.small_files)
        path = top / f"work/{file % 97:02}/{file % 13:02}/file-{file}"
        path.write_bytes(path.read_bytes() + b"more")
    with (top / "media/0").open("r+b") as large:
        large.seek(1 << 20)
        large.write(b"changed %d" % number)
    names = [f"media/{size.large_files - 1}", "media/moved"]
    before, after = names if number % 2 else reversed(names)
    (top / before).rename(top / after)
    os.sync()
    time.sleep(0.1)


# -- taking turns -----------------------------------------------------------------------------


class _Turn:
    """What is measured on two machines."""

    def __init__(self, here: Box, there: Box, alice: User, samples: Samples) -> None:
        self._here, self._there, self._alice, self._samples = here, there, alice, samples
        self._image = IMAGE.format(alice.name)

    def first_copy(self, who: str) -> None:
        """The whole home, one way."""
        ways: dict[str, Callable[[], object]] = {
            TAR: self._tar,
            TAR_ON_DISK: lambda: self._tar("sync -f"),
            "rsync -z": lambda: self._rsync("-aHAXSz", "-z"),
            "rsync": self._rsync,
            "homemgr": self._ours,
        }
        with _watching_memory(self._here, self._there, self._samples):
            self._rival("first copy", who, ways[who])

    def refreshes(self, size: Size) -> None:
        """After our first copy: without a change, and with one in a hundred changed."""
        self._rsync()
        for what in ("no change", "1 % changed"):
            if what != "no change":
                edit(self._here.path(self._image), size, 1)
            self._rival(what, "rsync", self._rsync)
            self._rival(what, "homemgr", self._ours)

    def offline(self) -> None:
        """How long nobody has the home, at its longest."""
        took = measure_offline(self._here, self._there, self._alice)
        self._samples.offline_s = max(self._samples.offline_s, took)

    def _rival(self, what: str, who: str, copy: Callable[[], object]) -> None:
        # Who waits for the disk must not wait for what others left to be written.
        os.sync()
        before, started = wire_bytes(self._here), time.monotonic()
        copy()
        passed, sent = time.monotonic() - started, wire_bytes(self._here) - before
        by_who = self._samples.runs.setdefault(what, {})
        by_who.setdefault(who, []).append(Sample(passed, sent))

    def _tar(self, finish: str = "true") -> None:
        receive = f"mkdir {RIVAL} && zstd -dq | tar -C {RIVAL} -xpf - && {finish} {RIVAL}"
        send = f"tar -C {self._image} -cf - . | zstd -1 -q | ssh {self._there.name} '{receive}'"
        self._here.run(["bash", "-o", "pipefail", "-c", send], timeout=600)

    def _rsync(self, flags: str = "-aHAXS", place: str = "") -> None:
        target = f"{self._there.name}:{RIVAL}{place}/"
        argv = ["rsync", flags, "--numeric-ids", "--delete", f"{self._image}/", target]
        self._here.run(argv, timeout=600)

    def _ours(self) -> None:
        migrate(self._here, self._there, self._alice, "--keep")


def migrate(here: Box, there: Box, user: User, *words: str) -> dict[str, float]:
    """Our command; gives its result."""
    argv = ["homemgr", "migrate", user.name, there.name, "--trust", "--json=short", *words]
    answer: dict[str, float] = json.loads(here.run(argv, timeout=600).stdout)
    return answer


def wire_bytes(box: Box) -> int:
    """What this end of the wire has sent."""
    name = f"wire{box.machine_id[:8]}"
    return int(box.run(["cat", f"/sys/class/net/{name}/statistics/tx_bytes"]).stdout)


def measure_offline(here: Box, there: Box, alice: User) -> float:
    """Move the home while a session writes a thousand files a minute, until it ends (s)."""
    writing = (
        "mkdir -p w; i=0; while read -t 0.06 x; [ $? -gt 128 ]; do i=$((i+1)); echo $i >w/$i; done"
    )
    session = ["sshpass", "-p", alice.password, "ssh", f"{alice.name}@localhost", "bash", "-c"]
    migrate(here, there, alice, "--keep")
    with here.background([*session, f"'{writing}'"]) as work:
        written = here.path(IMAGE.format(alice.name)) / "w"
        wait_for(lambda: written.exists() and len(os.listdir(written)) > 50, "files are written")
        ended = threading.Timer(2.0, lambda: work.stdin and work.stdin.close())
        ended.start()
        offline_s = migrate(here, there, alice, "--wait=60")["offline_s"]
        ended.join()
    return offline_s


@contextmanager
def _watching_memory(here: Box, there: Box, samples: Samples) -> Iterator[None]:
    """Note the most memory that a worker on either side takes."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.3):
            for box in (here, there):
                samples.memory_bytes = max(samples.memory_bytes, _largest_worker(box))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _largest_worker(box: Box) -> int:
    """Resident bytes at their highest, of the processes of our service."""
    most = 0
    for pid, command in box.processes().items():
        if "homemgrd" not in command:
            continue
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
        most = max(most, int(peak.split()[1]) * 1024)
    return most


# -- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aim:
    """A ratio of ours to a rival's that should not be exceeded."""

    what: str
    rival: str
    seconds: float | None = None
    bytes: float | None = None


AIMS = (
    Aim("first copy", TAR, seconds=1.0, bytes=1.0),
    Aim("first copy", TAR_ON_DISK, seconds=1.0),
    Aim("no change", "rsync", seconds=0.5),
    Aim("1 % changed", "rsync", bytes=0.2),
)


def _ratios(samples: Samples, aim: Aim) -> tuple[float, float]:
    ours, rival = (samples.runs[aim.what][who] for who in ("homemgr", aim.rival))
    return (
        median(s.seconds for s in ours) / median(s.seconds for s in rival),
        median(s.bytes for s in ours) / median(s.bytes for s in rival),
    )


def verdicts(samples: Samples) -> dict[str, bool]:
    """Each aim in words, and whether it is met."""
    found = {}
    for aim in AIMS:
        seconds, size = _ratios(samples, aim)
        for unit, ratio, most in (("time", seconds, aim.seconds), ("bytes", size, aim.bytes)):
            if most is not None:
                found[f"{aim.what}: {unit} {ratio:.2f} of {aim.rival}, aim {most}"] = ratio <= most
    offline, memory = samples.offline_s, samples.memory_bytes
    found[f"offline {offline:.2f} s, aim {OFFLINE_S} s"] = offline <= OFFLINE_S
    found[f"memory {memory >> 20} MiB, aim {MEMORY_BYTES >> 20} MiB"] = memory <= MEMORY_BYTES
    return found


def render(samples: Samples) -> str:
    """Two tables for people."""
    judged = [(text, VERDICTS[is_met]) for text, is_met in verdicts(samples).items()]
    return "\n\n".join((listed(samples.runs), aligned(judged)))


def listed(runs: Runs) -> str:
    """All runs as a table."""
    lines = [("what", "with", "median", "of rounds", "sent")]
    for what, by_who in runs.items():
        for who, its in by_who.items():
            seconds = [run.seconds for run in its]
            sent = median(run.bytes for run in its) / 1e6
            spread = f"{min(seconds):.2f}..{max(seconds):.2f}"
            lines.append((what, who, f"{median(seconds):.2f} s", spread, f"{sent:.1f} MB"))
    return aligned(lines)


def is_met(samples: Samples) -> bool:
    """Whether all aims are."""
    return all(verdicts(samples).values())
