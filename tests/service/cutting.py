"""A machine that loses power in the midst of what its service does, and is started again."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import verifying
from tests.service.bus import Bus
from tests.service.power import Disk
from tests.service.site import Service, Site, children, wait_until
from tests.service.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(Service):
    """A daemon whose steps are counted."""

    def __init__(self, site: Site, steps: Steps) -> None:
        """Start it."""
        self._steps = steps
        super().__init__(site)

    def start(self, *under: str) -> None:
        """As of every other one."""
        super().start(*self._steps.under(), *under)


class Trying(Thread):
    """Something that is done meanwhile, and perhaps never ends well."""

    def __init__(self, work: Callable[[], object]) -> None:
        """Begin."""
        super().__init__(daemon=True)
        self._work = work
        self.error: BusError | AssertionError | None = None
        self.start()

    def run(self) -> None:
        """Do it, and keep how it failed."""
        try:
            self._work()
        except (BusError, AssertionError) as error:
            self.error = error


class Machine:
    """An installation of which all that lasts lies on one disk."""

    def __init__(self, directory: Path, kind: str) -> None:
        """Start its service for the first time."""
        directory.mkdir()
        self.steps = Steps()
        # Before there is the disk, or it would keep that in its namespace.
        self._bus = Bus(directory / "state")
        self.disk = Disk(directory, kind)
        home_root = self.disk.path / "home"
        home_root.mkdir(0o755)
        self.site = Site(home_root, directory / "state", self._bus.address)
        self.site.records = self.disk.path / "records"
        self.site.blobs = self.disk.path / "blobs"
        self.site.accounts = self.disk.path / "etc"
        self.service = Watched(self.site, self.steps)

    def cut(self) -> None:
        """Lose power: nothing is written from this moment on, and nothing in memory stays."""
        self.disk.lose_power()
        slay_all(self.service, self.site)
        for mount in reversed(mounts_below(self.disk.path)):
            mounts.umount2(mount, mounts.MNT_DETACH)
        shutil.rmtree(self.site.runtime)
        below = f"{self.disk.path}/"
        wait_until(lambda: not [p for p in verifying.loops() if p.startswith(below)], "loops to go")
        self.disk.come_back()
        self.steps.begin()

    def attempt(self, work: Callable[[], object], last: int | None) -> Trying:
        """Do ``work`` up to step ``last``, or to its end."""
        self.steps.begin(last)
        trying = Trying(work)
        while trying.is_alive() and not self.steps.held.is_set():
            trying.join(0.002)
        return trying

    def close(self) -> None:
        """Take it away."""
        if self.service.is_running:
            self.service.call("DeactivateAllHomes")
        self.service.close()
        self._bus.close()
        self.steps.close()
        self.disk.take_away()


def slay_all(service: Service, site: Site) -> None:
    """End the daemon and all that it started, whatever they do."""
    mark = f"HOMEMGR_RUNTIME_DIR={site.runtime}".encode()
    found = set(family(service.pid)) if service.is_running else set()
    while found := {pid for pid in (*found, *marked(mark)) if is_alive(pid)}:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if service.is_running:
            service.kill()


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        return [pid, *(one for child in children(pid) for one in family(child))]
    except FileNotFoundError:
        return []


def marked(mark: bytes) -> list[int]:
    """Processes with this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether it could still do something."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def mounts_below(path: Path) -> list[str]:
    """Mount points below ``path``, in the order they came."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    places = [line.split(" ", 5)[4] for line in table.splitlines()]
    return [place for place in places if place.startswith(f"{path}/")]
