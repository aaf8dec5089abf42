"""A box: a booted systemd in namespaces of its own, on an overlay of this machine's tree.

Knows how to boot, run things in, look into and wipe a box. Must not know what is tested in it:
users, passwords and logins belong to logins.py, the packages of the product to product.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .product import lowers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

T = TypeVar("T")

BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
BOOT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.02

PRIMARY_GROUPS = {"nobody": "nogroup"}  # all others have a group of their own name
FIRST_HOME_UID, LAST_HOME_UID = 60001, 60513
BLOCK_DEVICES = 128  # of each kind that a box has nodes of
LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt of the kernel

SEPARATE = ("unshare", "-mpfuin", "--kill-child", "--propagation", "private")
ENTER = ("-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w")

# What a command sees when its test says nothing else: no trace of the machine around the box.
ENVIRONMENT = {
    "PATH": "/opt/homemgr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "cat",
}

MAKE_FILE_SYSTEM = {
    # encrypt: fscrypt homes need it; quota is left out, as not every kernel can mount it
    "ext4": ["mkfs.ext4", "-q", "-m", "0", "-O", "encrypt"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
}

# A kernel thread that zeroes inode tables in the background would only disturb measurements.
MOUNT_OPTIONS = {"ext4": "noinit_itable"}

# logind keeps the user manager, and with it the home, for ten seconds after the last logout; tests
# that are not about that would only wait. sshd offers all methods, the client of a test chooses.
DEFAULT_FILES = {
    "/etc/systemd/logind.conf.d/world.conf": "[Login]\nUserStopDelaySec=0\n",
    "/etc/ssh/sshd_config.d/00-world.conf": (
        "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nUseDNS no\nMaxStartups 200\n"
    ),
}


@dataclass(frozen=True)
class Result:
    """What a finished command left behind."""

    argv: tuple[str, ...]
    stdout: str
    stderr: str
    code: int

    @property
    def output(self) -> str:
        """Everything it said, for looking for a word."""
        return self.stdout + self.stderr


class CommandFailed(AssertionError):
    """A command in a box failed although the test needs it to succeed."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(
            f"{' '.join(result.argv)} ended with {result.code}\n"
            f"--- stdout\n{result.stdout[-4000:]}\n--- stderr\n{result.stderr[-4000:]}"
        )


def wait_for(
    predicate: Callable[[], T],
    what: str,
    timeout_s: float = 15.0,
    describe: Callable[[], str] = str,
) -> T:
    """Poll until the predicate is true and return its value; `describe` explains a failure."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}. {describe()}")
        time.sleep(POLL_S)
    return value


class Box:
    """One machine; a context manager that boots it and wipes every trace of it afterwards.

    `daemon` says whose home service it runs ("homemgr", or "homed" as the reference), `base` which
    distribution ("debian12" or "sid"), `file_system` what lies under /home, `files` what is written
    into it before it boots. With `is_disk` what lies under /home takes no processor time to write
    it, like a disk: not a second copy through the memory of the machine that runs the box.
    """

    def __init__(
        self,
        daemon: str = "homemgr",
        *,
        base: str = "debian12",
        file_system: str = "ext4",
        home_size: str = "4G",
        is_disk: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.daemon, self.base, self.file_system = daemon, base, file_system
        self.name = f"box-{uuid.uuid4().hex[:8]}"
        self.machine_id = uuid.uuid4().hex
        self.pid1 = 0
        self._home_size, self._is_disk = home_size, is_disk
        self._files = dict(files or {})
        self._state = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Box:
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def service(self) -> str:
        """The unit of the home service."""
        return "homemgrd.service" if self.daemon == "homemgr" else "systemd-homed.service"

    # Life of the box

    def boot(self) -> None:
        """Start systemd and wait until it is up; a box that does not come up is wiped again."""
        lowers = " ".join(lowers_of(self.daemon, self.base))
        self._state = Path(tempfile.mkdtemp(prefix=f"homemgr-{self.name}-"))
        try:
            self._make_home_image()
            self._make_nodes()
            self._write_files()
            self._start(lowers)
            self._wait_until_up()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Pull the plug: afterwards no process, mount, loop device or file of the box is left."""
        process, self._process = self._process, None
        if process is None:
            shutil.rmtree(self._state, ignore_errors=True)
            return
        for pid in (process.pid, self.pid1):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not _is_alive(self.pid1), f"{self.name} is dead")
        wait_for(lambda: not self.loop_devices(), f"the loop devices of {self.name} are free")
        self._remove_cgroups()
        shutil.rmtree(self._state)
        self.pid1 = 0

    def loop_devices(self) -> list[str]:
        """The kernel's loop devices over images of this box, /home's included."""
        # Paths are shown as from the root of a mount the box has detached: only the end is sure.
        own = f"{self._state.name}/"
        found = Path("/sys/block").glob("loop*/loop/backing_file")
        return [path.parts[3] for path in found if own in _read(path)]

    # Things done in it

    def command(self, argv: Sequence[str], *, user: str | None = None) -> list[str]:
        """The argv that runs a command in the box from outside, optionally as one of its users."""
        group = PRIMARY_GROUPS.get(user or "", user or "")
        become = ["setpriv", "--reuid", user, "--regid", group, "--init-groups"] if user else []
        return ["nsenter", "-t", str(self.pid1), *ENTER, *become, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        check: bool = True,
        timeout: float = COMMAND_TIMEOUT_S,
    ) -> Result:
        """Run a command to its end; with `check` a failure of it is a failure of the test."""
        process = subprocess.Popen(
            self.command(argv, user=user),
            env=ENVIRONMENT | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            stdout, stderr = _kill_and_collect(process)
            late = Result(tuple(argv), stdout, f"{stderr}\n(killed after {timeout:g} s)", -9)
            raise CommandFailed(late) from error
        result = Result(tuple(argv), stdout, stderr, process.returncode)
        if check and result.code != 0:
            raise CommandFailed(result)
        return result

    @contextmanager
    def background(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """A command that runs beside the test; what is left of it in the end is killed."""
        process = subprocess.Popen(
            self.command(argv, user=user),
            env=ENVIRONMENT | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                # nsenter only waits; the command itself is a child in its process group.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def systemctl(self, *arguments: str, check: bool = True) -> Result:
        """One systemctl call."""
        return self.run(["systemctl", *arguments], check=check)

    def main_pid(self, unit: str | None = None) -> int:
        """The main process of a unit (the home service) as the box counts pids; 0 if none."""
        unit = unit or self.service
        return int(self.systemctl("show", "-P", "MainPID", unit).stdout.strip() or 0)

    def pid_outside(self, inside: int) -> int:
        """The pid that this process knows one of the box's processes by."""
        for pid in self.processes():
            status = _read(Path(f"/proc/{pid}/status")).splitlines()
            if any(line.split()[-1:] == [str(inside)] for line in status if "NSpid:" in line):
                return pid
        # Never 0: as the target of a signal that would be the process group of the tests.
        raise ProcessLookupError(f"{self.name} has no process {inside}")

    def journal(self, unit: str | None = None, *, lines: int = 200) -> str:
        """The last lines a unit (or everybody) logged."""
        chosen = ["-u", unit] if unit else []
        argv = ["journalctl", "--no-pager", "-o", "short-precise", "-n", str(lines), *chosen]
        return self.run(argv, check=False).stdout

    # Looking into it from outside

    def path(self, inside: str) -> Path:
        """A path of the box as this process reaches it, mounts of the box included."""
        return Path(f"/proc/{self.pid1}/root") / inside.lstrip("/")

    def read(self, inside: str) -> str:
        """The text of a file."""
        return self.path(inside).read_text()

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Make a file, owned by root, with its directories."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def mounts(self) -> dict[str, str]:
        """Mount points and their options, as PID 1 sees them."""
        lines = Path(f"/proc/{self.pid1}/mounts").read_text().splitlines()
        return {fields[1]: fields[3] for fields in (line.split(" ") for line in lines)}

    def processes(self) -> dict[int, str]:
        """Every process of the box: pid as seen from here, and command line."""
        own = _namespace(self.pid1, "pid")
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return {pid: _command_line(pid) for pid in pids if own and _namespace(pid, "pid") == own}

    def people(self) -> list[str]:
        """Processes that run as the uid of a home user: "uid pid command line"."""
        found = []
        for pid, command in self.processes().items():
            status = _read(Path(f"/proc/{pid}/status"))
            uid = next((line.split()[1] for line in status.splitlines() if "Uid:" in line), "0")
            if FIRST_HOME_UID <= int(uid) <= LAST_HOME_UID:
                found.append(f"{uid} {pid} {command}")
        return found

    # The steps of a boot

    def _make_home_image(self) -> None:
        image = self._state / "home.img"
        with image.open("wb") as created:
            created.truncate(_bytes_of(self._home_size))
        subprocess.run(
            [*MAKE_FILE_SYSTEM[self.file_system], str(image)],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _make_nodes(self) -> None:
        # The numbers are global to the kernel, and nodes do not appear by themselves in a tmpfs.
        # Not by mknod(1), as guests, in which boxes boot too, take long to start a program.
        nodes = self._state / "nodes"
        nodes.mkdir()
        for name, major in (("loop", LOOP_MAJOR), ("dm-", _major("device-mapper"))):
            for number in range(BLOCK_DEVICES if major else 0):
                device = os.makedev(major, number)
                os.mknod(nodes / f"{name}{number}", stat.S_IFBLK | 0o660, device)

    def _write_files(self) -> None:
        for inside, text in (DEFAULT_FILES | self._files).items():
            target = self._state / "files" / inside.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def _start(self, lowers: str) -> None:
        # The parent-death signal takes the box down with a test run that is killed.
        with (self._state / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *SEPARATE, "bash", str(BOOT_SCRIPT)],
                env={
                    "PATH": ENVIRONMENT["PATH"],
                    "BOX_STATE": str(self._state),
                    "BOX_NAME": self.name,
                    "BOX_MACHINE_ID": self.machine_id,
                    "BOX_LOWERS": lowers,
                    "BOX_HOME_IMAGE": str(self._state / "home.img"),
                    "BOX_HOME_OPTIONS": MOUNT_OPTIONS.get(self.file_system, ""),
                    "BOX_HOME_IS_DISK": "yes" if self._is_disk else "",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_until_up(self) -> None:
        process = self._process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def is_listening() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} did not boot: {_read(self._state / 'boot.log')}")
            if not self.pid1:
                self.pid1 = int(_read(children).strip() or 0)
            # The socket of PID 1: before it exists, systemctl says "offline" and returns at once.
            return bool(self.pid1) and self.path("/run/systemd/private").exists()

        wait_for(is_listening, f"{self.name} runs systemd", BOOT_TIMEOUT_S)
        state = self.systemctl("is-system-running", "--wait", check=False).stdout.strip()
        if state != "running":
            failed = self.systemctl("--failed", "--no-legend", "--plain", check=False).stdout
            raise RuntimeError(f"{self.name} is {state}:\n{failed}\n{self.journal()}")

    def _remove_cgroups(self) -> None:
        # In a mount namespace of its own, since hosts differ in where cgroup2 is mounted. find
        # does not say whether rmdir succeeded, and dying processes keep a group for a moment.
        group = f"{self._state}/cgroup/homemgr-{self.name}"
        script = (
            f"mount -t cgroup2 none {self._state}/cgroup && "
            f"{{ find {group} -depth -type d -exec rmdir {{}} ';'; ! test -e {group}; }}"
        )
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
        wait_for(
            lambda: subprocess.run(argv, check=False, capture_output=True).returncode == 0,
            f"the control groups of {self.name} are empty",
        )


def _kill_and_collect(process: subprocess.Popen[str]) -> tuple[str, str]:
    os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=2)
    except subprocess.TimeoutExpired as error:
        # A descendant that left the process group still holds the pipes; it dies with the box.
        return str(error.stdout or ""), str(error.stderr or "")


def _major(driver: str) -> int:
    """The number of a driver of block devices; 0 if this kernel does not have it."""
    _, _, blocks = Path("/proc/devices").read_text().partition("Block devices:\n")
    rows = [line.split() for line in blocks.splitlines()]
    return next((int(number) for number, name in rows if name == driver), 0)


def _bytes_of(size: str) -> int:
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]


def _read(path: Path) -> str:
    # Entries of /proc and /sys come and go between listing and reading.
    try:
        return path.read_text()
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    # A zombie has no namespaces any more: dead enough, whenever its parent comes to reap it.
    return bool(pid) and _namespace(pid, "mnt") != ""


def _namespace(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
