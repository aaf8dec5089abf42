"""What people do: log in over ssh, hold and leave homes by the bus, change things, look things up.

Every failure that nothing explains is a fault: a login that met no kill has to succeed.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from random import Random

from homemgr.wire.client import Client
from homemgr.wire.messages import BusError

from . import people
from .people import PASSWORD, SECRET
from .service import MANAGER, NAME, PATH, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SSH = (
    *("sshpass", "-e", "ssh", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"),
    *("-o", "PreferredAuthentications=password", "-o", "LogLevel=ERROR"),
)
LOGIN_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 60.0
#: What a home in use by others may answer; logins wait instead.
BUSY = {"HomeBusy", "HomeAlreadyActive", "HomeNotActive", "RecordMismatch", "RecordDowngrade"}
LONGEST_STAY_S = 0.5


class Fault(Exception):
    """Something that must not happen."""


class Crowd:
    """All users, and who of them may be disturbed now."""

    def __init__(self, count: int, service: Service) -> None:
        """``count`` users, all made already."""
        self.service = service
        self.names = [people.name_of(number) for number in range(count)]
        #: Lines that are in a user's log for sure.
        self.written: dict[str, set[str]] = {name: set() for name in self.names}
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.may_go = threading.Event()
        self.is_over = threading.Event()
        self.may_go.set()
        self._idle = threading.Condition()
        self._inside = 0
        self._lock = threading.Lock()
        self._shared: Counter[str] = Counter()
        self._alone: set[str] = set()

    def live(self, seed: int) -> None:
        """One worker's life: random users do random things until it is over."""
        rng = Random(seed)
        with Client() as client:
            while not self.is_over.is_set():
                if not self.may_go.wait(0.1):
                    continue
                with self._counted():
                    self._act(rng, client)

    def pause(self) -> None:
        """Nobody begins anything, and who does something has ended."""
        self.may_go.clear()
        with self._idle:
            self._idle.wait_for(lambda: not self._inside)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._idle:
            self._inside += 1
        try:
            yield
        finally:
            with self._idle:
                self._inside -= 1
                self._idle.notify_all()

    def _act(self, rng: Random, client: Client) -> None:
        name = rng.choice(self.names)
        action, is_alone = rng.choices(ACTIONS, WEIGHTS)[0]
        if not self._enter(name, is_alone=is_alone):
            return
        before = self.service.moment()
        try:
            action(self, rng, client, name)
        except (BusError, Fault) as fault:
            if before is None or self.service.moment() != before:
                self.done["met a kill"] += 1
            else:
                self.faults.append(f"{action.__name__} of {name}: {fault}")
        else:
            self.done[action.__name__.strip("_")] += 1
        finally:
            self._leave(name, is_alone=is_alone)

    def _enter(self, name: str, *, is_alone: bool) -> bool:
        """What takes a home away from under others is for who is alone with it."""
        with self._lock:
            if name in self._alone or (is_alone and self._shared[name]):
                return False
            if is_alone:
                self._alone.add(name)
            else:
                self._shared[name] += 1
            return True

    def _leave(self, name: str, *, is_alone: bool) -> None:
        with self._lock:
            if is_alone:
                self._alone.discard(name)
            else:
                self._shared[name] -= 1


def call(client: Client, member: str, signature: str, *arguments: object) -> list[object]:
    """One call; descriptors that come are closed by the caller's leaving of them."""
    reply = client.call(NAME, PATH, MANAGER, member, signature, arguments, timeout_s=CALL_TIMEOUT_S)
    return [*reply.body, *reply.fds]


def _patiently(run: Callable[[], object]) -> None:
    try:
        run()
    except BusError as error:
        if error.name.rpartition(".")[2] not in BUSY:
            raise


def _log_in(crowd: Crowd, rng: Random, _client: Client, name: str) -> None:
    """Over ssh, leaving a line behind."""
    line = f"{rng.getrandbits(64):x}"
    script = f"pwd; echo {line} >>log && sync log && echo done"
    done = subprocess.run(
        [*SSH, f"{name}@localhost", script],
        env=os.environ | {"SSHPASS": PASSWORD},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LOGIN_TIMEOUT_S,
        check=False,
    )
    if done.stdout.split() != [f"/home/{name}", "done"]:
        raise Fault(f"ssh ended with {done.returncode}: {done.stdout!r} {done.stderr[-300:]!r}")
    crowd.written[name].add(line)


def _fail_to_log_in(_crowd: Crowd, _rng: Random, client: Client, name: str) -> None:
    """With a wrong password."""
    try:
        call(client, "AcquireHome", "ssb", name, json.dumps({"password": ["wrong"]}), False)
    except BusError as error:
        if error.name.endswith(".BadPassword"):
            return
        raise
    raise Fault("a wrong password was taken")


def _stay(_crowd: Crowd, rng: Random, client: Client, name: str) -> None:
    """Hold the home for a while."""
    (fd,) = call(client, "AcquireHome", "ssb", name, SECRET, rng.random() < 0.5)[1:]
    try:
        time.sleep(rng.random() * LONGEST_STAY_S)
    finally:
        fd.close()  # type: ignore[attr-defined]


def _activate(_crowd: Crowd, _rng: Random, client: Client, name: str) -> None:
    _patiently(lambda: call(client, "ActivateHome", "ss", name, SECRET))
    _patiently(lambda: call(client, "DeactivateHome", "s", name))


def _authenticate(_crowd: Crowd, _rng: Random, client: Client, name: str) -> None:
    _patiently(lambda: call(client, "AuthenticateHome", "ss", name, SECRET))


def _update(_crowd: Crowd, rng: Random, client: Client, name: str) -> None:
    found = json.loads(str(call(client, "GetUserRecordByName", "s", name)[0]))
    for section in ("binding", "status", "signature"):
        found.pop(section, None)
    found["realName"] = f"Name {rng.getrandbits(32)}"
    found["lastChangeUSec"] = time.time_ns() // 1000
    found["secret"] = {"password": [PASSWORD]}
    _patiently(lambda: call(client, "UpdateHome", "s", json.dumps(found)))


def _change_password(_crowd: Crowd, _rng: Random, client: Client, name: str) -> None:
    _patiently(lambda: call(client, "ChangePasswordHome", "sss", name, SECRET, SECRET))


def _look_up(_crowd: Crowd, _rng: Random, client: Client, name: str) -> None:
    call(client, "ListHomes", "")
    done = subprocess.run(["getent", "passwd", name], capture_output=True, text=True, check=False)
    if not done.stdout.startswith(f"{name}:x:"):
        raise Fault(f"getent ended with {done.returncode}: {done.stdout!r}")


ACTIONS: tuple[tuple[Callable[[Crowd, Random, Client, str], None], bool], ...] = (
    (_log_in, False),
    (_fail_to_log_in, False),
    (_stay, False),
    (_activate, True),
    (_authenticate, False),
    (_update, False),
    (_change_password, True),
    (_look_up, False),
)
WEIGHTS = (30, 3, 20, 10, 10, 8, 4, 15)
