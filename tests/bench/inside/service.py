"""The two services as units: start, stop, and what their processes use. Knows no method of theirs.

Times and memory are the kernel's and systemd's own figures (cgroup v2 cpu.stat,
/proc/PID/smaps_rollup, properties of the unit), the same for both.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from homemgr.wire.client import Client
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

NAME = "org.freedesktop.home1"
START_TIMEOUT_S = 60.0
POLL_S = 0.002
KIB = 1024


@dataclass(frozen=True)
class Service:
    """One of the two; only one runs at a time, as both own the same bus name."""

    key: str
    unit: str
    #: The command line program that goes with it.
    program: str

    def start(self) -> float:
        """Start it; seconds from its first instruction until it is ready and owns its name."""
        _systemctl("start", "--no-block", self.unit)
        owned = _wait_for_name()
        _systemctl("start", self.unit)
        ready = self._usec("ActiveEnterTimestampMonotonic")
        return max(ready, owned) - self._usec("ExecMainStartTimestampMonotonic")

    def stop(self) -> None:
        """Stop it; homes have been deactivated before."""
        _systemctl("stop", self.unit)

    def private_bytes(self) -> int:
        """Anonymous memory of all its processes; what they share counts once (proc(5))."""
        return sum(_anonymous_bytes(pid) for pid in self._pids())

    def cpu_s(self) -> float:
        """Processor time of the unit so far, ended processes included."""
        lines = (self._cgroup / "cpu.stat").read_text().splitlines()
        usage = next(line.split()[1] for line in lines if line.startswith("usage_usec"))
        return int(usage) / 1e6

    @property
    def _cgroup(self) -> Path:
        return Path("/sys/fs/cgroup/system.slice") / self.unit

    def _pids(self) -> list[str]:
        return (self._cgroup / "cgroup.procs").read_text().split()

    def _usec(self, stamp: str) -> float:
        """A time stamp of the unit, in seconds of the monotonic clock."""
        return int(_systemctl("show", "-P", stamp, self.unit)) / 1e6


OURS = Service("ours", "homemgrd.service", "/opt/homemgr/bin/homemgr")
HOMED = Service("homed", "bench-homed.service", "/usr/bin/homectl")


def make_room_for_both() -> None:
    """After `homemgr setup`, which masks systemd-homed: its unit once more, under another name."""
    shipped = Path("/usr/lib/systemd/system/systemd-homed.service").read_text()
    settings, _, _ = shipped.partition("[Install]")  # its aliases are our unit's now
    # Two loaded units must not name the same bus name; the daemon does not read it.
    kept = [line for line in settings.splitlines() if not line.startswith("BusName=")]
    (Path("/run/systemd/system") / HOMED.unit).write_text("\n".join(kept) + "\n")
    _systemctl("daemon-reload")
    OURS.stop()


def _systemctl(*arguments: str) -> str:
    argv = ["systemctl", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr}")
    return done.stdout.strip()


def _wait_for_name() -> float:
    """When the bus name got an owner, by the monotonic clock."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with Client() as client:
        while not _is_owned(client):
            if time.monotonic() > deadline:
                raise RuntimeError(f"nobody owns {NAME} after {START_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        return time.monotonic()


def _is_owned(client: Client) -> bool:
    try:
        client.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetNameOwner", "s", [NAME])
    except BusError:
        return False
    return True


def _anonymous_bytes(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just ended
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("Pss_Anon:"))
