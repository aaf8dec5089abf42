"""One installation of the service: its directories, its bus, its process, its clients.

The daemon is the real one, started as systemd would start it; it says on a
notification socket when it is ready, and its log goes to a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING, TypeVar

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
from homemgr.work import server
from tests.service import people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
NAME = "org.freedesktop.home1"
MANAGER_PATH = "/org/freedesktop/home1"
MANAGER = NAME + ".Manager"
HOME = NAME + ".Home"

_PROGRAM = (
    "import sys; from tests import stretching; stretching.make_short();"
    " from homemgr.daemon import attempts;"
    " attempts.FAILURE_DELAY_S = float(sys.argv.pop());"
    " from homemgr.entry import homemgrd; sys.exit(homemgrd())"
)
#: How late a wrong password is answered: only the test of that waits as long as people do.
_FAILURE_DELAY_S = 0.2
_START_S = 20.0
_STOP_S = 20.0


class Site:
    """Where one installation keeps its things; survives its daemons."""

    def __init__(self, disk: Path, state: Path, bus_address: str, **settings: str) -> None:
        """Homes below ``disk``, everything else below ``state``; settings go to [Home]."""
        self.home_root = disk
        self.records = state / "records"
        self.blobs = state / "blobs"
        self.runtime = state / "run"
        self.log = state / "log"
        self.accounts = state / "etc"
        self.bus_address = bus_address
        self._config = state / "homemgr.conf"
        state.mkdir(exist_ok=True)
        settings = {"GraceSec": "0.1", **settings}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._config.write_text("\n".join(["[Home]", *lines, ""]))

    @property
    def base(self) -> Path:
        """Where new homes lie."""
        return self.home_root / ".homemgr"

    @property
    def userdb_socket(self) -> Path:
        """Where the user database listens."""
        return self.runtime / "userdb" / "io.systemd.Home"

    def environment(self) -> dict[str, str]:
        """What the daemon is started with."""
        extensions = {k: v for k, v in os.environ.items() if k.startswith("HOMEMGR_EXTENSION")}
        return {
            **extensions,
            "PATH": os.environ["PATH"],
            "DBUS_SYSTEM_BUS_ADDRESS": self.bus_address,
            "SYSTEMD_HOME_ROOT": str(self.home_root),
            "SYSTEMD_HOME_RECORD_DIR": str(self.records),
            "SYSTEMD_HOME_SYSTEM_BLOB_DIR": str(self.blobs),
            "HOMEMGR_RUNTIME_DIR": str(self.runtime),
            "HOMEMGR_ACCOUNT_DIR": str(self.accounts),
            "HOMEMGR_CONFIG": str(self._config),
            "HOMEMGR_LOG_LEVEL": "DEBUG",
            # Cheap to compute: these tests are about the service.
            "SYSTEMD_CRYPT_PREFIX": "$6$",
        }

    def digest(self) -> dict[str, tuple[object, ...]]:
        """Everything on disk that an operation could have changed."""
        found: dict[str, tuple[object, ...]] = {}
        for top in (self.home_root, self.records, self.blobs):
            for directory, subdirectories, names in os.walk(top):
                for name in (*subdirectories, *names):
                    path = Path(directory, name)
                    found[str(path)] = _fingerprint(path)
        return found

    def signed(self, record: JsonObject) -> UserRecord:
        """The record with a signature of this installation."""
        key = PrivateKey.from_pem((self.records / "local.private").read_bytes())
        return sign(UserRecord(record), key)

    def plant(self, name: str, *, file_name: str | None = None, **fields: object) -> Path:
        """Put a home area on the disk that no daemon knows; returns its path."""
        record = self.signed({**people.record(name, secret=None), **fields})  # type: ignore[dict-item]
        return self.plant_text(name, record.embedded().pretty(), file_name=file_name)

    def plant_text(self, name: str, identity: bytes, *, file_name: str | None = None) -> Path:
        """As ``plant``, with any text as the home's own record."""
        self.base.mkdir(0o700, exist_ok=True)
        hidden = self.base / f".{name}-to-be"
        hidden.mkdir(0o700)
        (hidden / ".identity").write_bytes(identity)
        (hidden / "note").write_text(f"of {name}\n")
        for path in (hidden, *hidden.iterdir()):
            os.chown(path, 65534, 65534)
        return hidden.rename(self.base / (file_name or f"{name}.homedir"))


def _fingerprint(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = b""
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
        if path.suffix == ".identity":
            # Counters of earlier attempts are saved a moment later.
            record = {**json.loads(content), "status": None}
            content = json.dumps(record, sort_keys=True).encode()
    return status.st_mode, status.st_uid, status.st_gid, hashlib.sha256(content).hexdigest()


class Pending(Thread):
    """A call on a connection of its own that is on its way."""

    def __init__(
        self, address: str, member: str, signature: str, arguments: tuple[object, ...]
    ) -> None:
        """Send it now."""
        super().__init__()
        self._address = address
        self._call = (NAME, MANAGER_PATH, MANAGER, member, signature, arguments)
        self._body: list[object] | None = None
        self._fds: list[Fd] = []
        self._error: BusError | None = None
        self.start()

    def run(self) -> None:
        """The thread's life."""
        with Client(self._address) as client:
            try:
                reply = client.call(*self._call, timeout_s=60)
                self._body, self._fds = reply.body, reply.fds
            except BusError as error:
                self._error = error

    def result(self, within_s: float = 30.0) -> list[object]:
        """The body of the answer once it is there; raises the error that came instead."""
        self.join(within_s)
        assert not self.is_alive(), f"no answer within {within_s} s"
        if self._error is not None:
            raise self._error
        assert self._body is not None
        return self._body

    def reference(self, within_s: float = 30.0) -> Fd:
        """The descriptor that came; the caller closes it."""
        self.result(within_s)
        (fd,) = self._fds
        return fd

    def failure(self, within_s: float = 30.0) -> str:
        """The short name of the error that came; empty if it was a success, which is given up."""
        try:
            self.result(within_s)
        except BusError as error:
            return short(error.name)
        for fd in self._fds:
            fd.close()
        return ""


class Service:
    """A running daemon and one client of it; `kill` and `restart` as often as you like."""

    def __init__(self, site: Site, *, failure_delay_s: float = _FAILURE_DELAY_S) -> None:
        """Start it; it answers when this returns."""
        self.site = site
        self._argv = [sys.executable, "-c", _PROGRAM, str(failure_delay_s)]
        self.client = Client(site.bus_address)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        # Connected from the start, so that tests can count descriptors.
        self.call("ListHomes")

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        assert self._process is not None
        return self._process.pid

    # -- its life ----------------------------------------------------------------------

    def start(self, *under: str) -> None:
        """Start the daemon, ``under`` a program that becomes it, and wait until it is ready."""
        assert self._process is None
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            name = f"\0homemgr-test-{os.getpid()}-{time.monotonic_ns()}"
            ready.bind(name)
            with self.site.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*under, *self._argv],
                    cwd=ROOT,
                    env={**self.site.environment(), "NOTIFY_SOCKET": f"@{name[1:]}"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._wait_until_ready(self._process, ready)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], ready: socket.socket) -> None:
        deadline = time.monotonic() + _START_S
        ready.settimeout(0.1)
        told = b""
        while b"READY=1" not in told:
            is_late = process.poll() is not None or time.monotonic() > deadline
            with suppress(TimeoutError):
                # What it said before it died counts as well.
                told = ready.recv(4096)
                continue
            if is_late:
                process.kill()
                process.wait()
                raise AssertionError(self.site.log.read_text())

    def stop(self) -> int:
        """End it as systemd does; gives its exit code."""
        self.ask_to_stop()
        return self.wait_for_end(_STOP_S)

    def ask_to_stop(self) -> None:
        """Tell it to end, without waiting."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait_for_end(self, within_s: float) -> int:
        """Wait until it has ended by itself; gives its exit code."""
        assert self._process is not None
        code = self._process.wait(within_s)
        self._process = None
        return code

    def start_another(self) -> tuple[int, str]:
        """Start a second daemon on the same site; gives its exit code and what it said."""
        ended = subprocess.run(
            self._argv,
            cwd=ROOT,
            env=self.site.environment(),
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=False,
        )
        return ended.returncode, ended.stderr

    def kill(self) -> None:
        """End it without a chance to do anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def kill_with_workers(self) -> None:
        """The same, and what it has begun ends where it is."""
        workers = self.workers()
        self.kill()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Have it read its rules again, as `systemctl reload` does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """Stop it and start it again."""
        assert self.stop() == 0
        self.start()

    def close(self) -> None:
        """Let nothing of it remain: homes are unmounted, the daemon ends."""
        if self._process is not None:
            self.stop()
        self.client.close()

    def job_server(self) -> int:
        """Process id of the daemon's only lasting child."""
        (child,) = children(self.pid)
        return child

    @property
    def is_running(self) -> bool:
        """False after `stop` and `kill`."""
        return self._process is not None

    def workers(self) -> list[int]:
        """Processes that carry out operations now."""
        return [pid for pid in children(self.job_server()) if name_of(pid) == server.BUSY]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No worker begins until the end of the block: operations stay half way."""
        server = self.job_server()
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)

    # -- talking to it -----------------------------------------------------------------

    def new_client(self) -> Client:
        """Another connection; the caller closes it."""
        return Client(self.site.bus_address)

    def call(
        self, member: str, signature: str = "", *arguments: object, **more: object
    ) -> list[object]:
        """Call the manager object; gives the body of the answer."""
        target = (NAME, MANAGER_PATH, MANAGER, member)
        reply = self.client.call(*target, signature, arguments, timeout_s=60, **more)  # type: ignore[arg-type]
        assert not reply.fds
        return reply.body

    def begin(self, member: str, signature: str = "", *arguments: object) -> Pending:
        """Call the manager without waiting for the answer."""
        return Pending(self.site.bus_address, member, signature, arguments)

    def call_home(self, name: str, member: str, signature: str = "", *args: object) -> list[object]:
        """Call a member of a home object."""
        path = f"{MANAGER_PATH}/home/{name}"
        reply = self.client.call(NAME, path, HOME, member, signature, args, timeout_s=60)
        assert not reply.fds
        return reply.body

    def error(self, member: str, signature: str = "", *arguments: object, **more: object) -> str:
        """The name of the error the manager answers with, without its usual prefix."""
        return short(self.failure(member, signature, *arguments, **more).name)

    def failure(
        self, member: str, signature: str = "", *arguments: object, **more: object
    ) -> BusError:
        """The error the manager answers with."""
        try:
            body = self.call(member, signature, *arguments, **more)
        except BusError as error:
            return error
        raise AssertionError(f"{member} succeeded with {body}")

    def failure_of_home(
        self, name: str, member: str, signature: str = "", *args: object
    ) -> BusError:
        """The error a home object answers with."""
        try:
            body = self.call_home(name, member, signature, *args)
        except BusError as error:
            return error
        raise AssertionError(f"{member} of {name} succeeded with {body}")

    def state(self, name: str) -> str:
        """The state of a home, by name."""
        return str(self.call("GetHomeByName", "s", name)[1])

    def states(self) -> dict[str, str]:
        """The states of all homes."""
        (rows,) = self.call("ListHomes")
        return {row[0]: row[2] for row in rows}  # type: ignore[attr-defined]

    def create(self, name: str, **fields: object) -> None:
        """Make a home area with the usual password."""
        self.call("CreateHome", "s", people.text(people.record(name, **fields)))

    def activate(self, name: str, password: str = people.PASSWORD) -> None:
        """Activate a home."""
        self.call("ActivateHome", "ss", name, people.secret(password))

    def deactivate(self, name: str) -> None:
        """Deactivate a home."""
        self.call("DeactivateHome", "s", name)

    def acquire(
        self, name: str, password: str = people.PASSWORD, *, please_suspend: bool = False
    ) -> Fd:
        """A reference to a home; the caller closes it."""
        secret = people.secret(password)
        return reference(self.client, "AcquireHome", "ssb", name, secret, please_suspend)

    def ref(self, name: str, member: str = "RefHome") -> Fd:
        """A reference without a password; the caller closes it."""
        return reference(self.client, member, "sb", name, False)

    def user_record(self, name: str) -> JsonObject:
        """What root is shown of a user."""
        return people.parse(str(self.call("GetUserRecordByName", "s", name)[0]))

    def wait_for(self, name: str, *states: str, within_s: float = 5.0) -> None:
        """Return when a home has reached one of ``states``."""
        wait_until(lambda: self.states().get(name) in states, f"{name} to be {states}", within_s)

    def path_of(self, name: str) -> Path:
        """Where a home is seen while it is active."""
        return self.site.home_root / name


def reference(client: Client, member: str, signature: str, *arguments: object) -> Fd:
    """Call a member that gives a reference."""
    reply = client.call(NAME, MANAGER_PATH, MANAGER, member, signature, arguments, timeout_s=60)
    (fd,) = reply.fds
    return fd


def short(name: str) -> str:
    """An error name without the prefixes that most have."""
    return name.removeprefix(NAME + ".").removeprefix("org.freedesktop.DBus.Error.")


def name_of(pid: int) -> str:
    """What ps(1) would show; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Direct child processes."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def wait_until(is_true: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    """Poll until it holds; fail with ``what`` was expected."""
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.01)


def at_once(tasks: Iterable[Callable[[], T]]) -> list[T | BusError]:
    """Run all tasks in threads that begin together; errors of the bus are results."""
    todo = list(tasks)
    begin = Barrier(len(todo))

    def run(task: Callable[[], T]) -> T | BusError:
        begin.wait()
        try:
            return task()
        except BusError as error:
            return error

    with ThreadPoolExecutor(len(todo)) as pool:
        return list(pool.map(run, todo))
