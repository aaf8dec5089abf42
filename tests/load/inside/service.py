"""The service under load: whether it runs, killing it, and what its processes use."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from homemgr.wire.client import Client
from homemgr.wire.messages import BusError

UNIT = "homemgrd.service"
NAME, PATH = "org.freedesktop.home1", "/org/freedesktop/home1"
MANAGER = f"{NAME}.Manager"
CGROUP = Path("/sys/fs/cgroup/system.slice") / UNIT
UP_TIMEOUT_S = 60.0
POLL_S = 0.02


class Service:
    """One service and its lives; what fails across a kill is nobody's fault."""

    def __init__(self) -> None:
        """It runs."""
        self._lock = threading.Lock()
        self._life = 0
        self._is_up = True

    def moment(self) -> int | None:
        """A number that is the same as long as it lives; None while it does not."""
        with self._lock:
            return self._life if self._is_up else None

    def kill(self, *, workers_too: bool) -> None:
        """End it without a word, and wait until the next one answers."""
        with self._lock:
            self._is_up = False
            self._life += 1
        before = pid()
        whom = "all" if workers_too else "main"
        subprocess.run(["systemctl", "kill", "-s", "KILL", f"--kill-whom={whom}", UNIT], check=True)
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not (pid() not in (0, before) and answers()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{UNIT} did not come back within {UP_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        with self._lock:
            self._is_up = True


def pid() -> int:
    """The main process; 0 while there is none."""
    argv = ["systemctl", "show", "-P", "MainPID", UNIT]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def answers() -> bool:
    """Whether it lists homes."""
    with Client() as client:
        try:
            client.call(NAME, PATH, MANAGER, "ListHomes")
        except BusError:
            return False
    return True


def states() -> dict[str, str]:
    """The state of every home by name."""
    with Client() as client:
        (rows,) = client.call(NAME, PATH, MANAGER, "ListHomes", timeout_s=60).body
        assert isinstance(rows, list)
        return {row[0]: row[2] for row in rows}


def descriptors() -> int:
    """How many its main process has open."""
    return len(os.listdir(f"/proc/{pid()}/fd"))


def processes() -> list[str]:
    """The names of those that it consists of."""
    pids = (CGROUP / "cgroup.procs").read_text().split()
    return sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids)


def memory_bytes() -> int:
    """Anonymous memory of its main process (proc(5))."""
    lines = Path(f"/proc/{pid()}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))


def restarts() -> int:
    """How often systemd has started it again by itself."""
    argv = ["systemctl", "show", "-P", "NRestarts", UNIT]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def troubles() -> list[str]:
    """What it logged of its own faults: programs that are right do not trace back."""
    argv = ["journalctl", "-u", UNIT, "-o", "cat", "--no-pager"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    marks = ("Traceback", "never retrieved", "ResourceWarning", "was never awaited")
    at = [number for number, line in enumerate(lines) if any(mark in line for mark in marks)]
    return ["\n".join(lines[number : number + 25]) for number in at[:5]]
