"""A machine that loses power in the midst of what its service does, and is started again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import uuid
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from homemgr.kernel import device_mapper, mounts
from homemgr.wire.messages import BusError
from tests import verifying
from tests.service.bus import Bus
from tests.service.moving import OtherMachine
from tests.service.power import WAIT_S, Disk
from tests.service.site import Site, children, wait_until
from tests.service.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(OtherMachine):
    """A daemon whose steps are counted."""

    def __init__(self, site: Site, identity: Path, steps: Steps) -> None:
        """Start it."""
        self._steps = steps
        super().__init__(site, identity)

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

    def __init__(self, directory: Path, bus: Bus, kind: str, *, is_apart: bool) -> None:
        """Start its service for the first time; ``is_apart``: /home has a file system of its own.

        What is flushed in one file system is not in the other. ``bus`` was there before any disk:
        it would keep that in its namespace.
        """
        self.steps = Steps()
        self._bus = bus
        self.disk = Disk(directory, kind, *(("root", "home") if is_apart else ("root",)))
        root, home = self.disk.parts[0].path, self.disk.parts[-1].path
        (home / "homes").mkdir(0o755)
        self.site = Site(home / "homes", directory / "run", bus.address)
        self.site.records = root / "records"
        self.site.blobs = root / "blobs"
        self.site.accounts = root / "etc"
        identity = directory / "machine-id"
        identity.write_text(f"{uuid.uuid4().hex}\n")
        os.sync()
        self.service = Watched(self.site, identity, self.steps)

    def cut(self) -> None:
        """Lose power: nothing is written from this moment on, and nothing in memory stays."""
        self.disk.lose_power()
        self.slay()
        shutil.rmtree(self.site.runtime, ignore_errors=True)
        for path in (part.path for part in self.disk.parts):
            for mount in reversed(mounts_below(path)):
                mounts.umount2(mount, mounts.MNT_DETACH)
            forget_devices()
            wait_until(lambda top=f"{path}/": not loops_below(top), "loop devices to go", WAIT_S)  # type: ignore[misc]
        self.disk.come_back()
        self.steps.begin()

    def slay(self) -> None:
        """End the daemon and all that it started, whatever they do."""
        found: set[int] = set()
        # Stopped first: who is killed before his child is known of leaves an orphan.
        while more := self._processes(found) - found:
            for pid in more:
                send(pid, signal.SIGSTOP)
            found |= more
            # Also who waits in the kernel does nothing more, such as for a child that was stopped.
            wait_for_all(more, "TtDZX")
        for pid in found:
            send(pid, signal.SIGKILL)
        if self.service.is_running:
            self.service.kill()
        wait_for_all(found, "ZX")

    def _processes(self, known: set[int]) -> set[int]:
        """All that belong to the service, as far as can be seen from those that are known."""
        mark = f"HOMEMGR_RUNTIME_DIR={self.site.runtime}".encode()
        roots = {*known, *marked(mark), *([self.service.pid] if self.service.is_running else [])}
        return {one for root in roots for one in family(root) if state_of(one) not in "ZX"}

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


def forget_devices() -> None:
    """Take away encrypted devices, of which nothing goes by itself."""
    if "HOMEMGR_TEST_CRYPT" not in os.environ:
        return
    with device_mapper.open_control() as control:
        number = control.fileno()
        for name in device_mapper.names(number):
            wait_until(lambda name=name: is_removed(number, name), f"{name} to go", WAIT_S)  # type: ignore[misc]


def is_removed(control: int, name: str) -> bool:
    """Whether the device could be taken away; who used it lets go a moment later."""
    try:
        device_mapper.remove(control, name)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


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


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal, also to who has ended by now."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_all(pids: set[int], states: str) -> None:
    """Return when each of these processes is in one of ``states``."""
    what = f"{pids} to be in {states}"
    wait_until(lambda: all(state_of(pid) in states for pid in pids), what, WAIT_S)


def state_of(pid: int) -> str:
    """As proc_pid_stat(5) has it; "X" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def mounts_below(path: Path) -> list[str]:
    """Mount points below ``path``, in the order they came."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    places = [line.split(" ", 5)[4] for line in table.splitlines()]
    return [place for place in places if place.startswith(f"{path}/")]


def loops_below(top: str) -> list[str]:
    """Images in a directory that are devices."""
    return [image for image in verifying.loops() if image.startswith(top)]
