"""Drives either service over the bus and the user database socket, with one neutral client.

The client is ours and the same for both. What an empty call to the bus itself takes
(client, kernel and bus daemon) is measured beside every call and taken off.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from homemgr.wire.client import Client
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject
    from homemgr.wire.client import Reply

NAME, PATH, MANAGER = (
    "org.freedesktop.home1",
    "/org/freedesktop/home1",
    "org.freedesktop.home1.Manager",
)
BUSY, NOT_ACTIVE = f"{NAME}.HomeBusy", f"{NAME}.HomeNotActive"
BUSY_PAUSE_S = 0.5
USERDB = "/run/systemd/userdb/io.systemd.Home"
EMPTY_CALLS = 25
TIMEOUT_S = 120.0


class Driver:
    """A client of the service that runs now; use it as a context manager."""

    def __init__(self, secret: JsonObject, address: str | None = None) -> None:
        """Connect to a bus, that of the system if not another, and see what an empty call takes."""
        self._secret = json.dumps(secret)
        self._client = Client(address)
        #: The last ones: what else the machine does changes within a turn.
        self._empty: deque[float] = deque(maxlen=EMPTY_CALLS)
        for _ in range(EMPTY_CALLS):
            self._measure_empty_call()
        #: Homes refused as busy although nobody is in any of them.
        self.false_busy = 0

    def __enter__(self) -> Driver:
        """Close at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bus."""
        self._client.close()

    # Calls, and the seconds they took

    def create(self, record: JsonObject) -> float:
        """CreateHome."""
        text = json.dumps({**record, "secret": json.loads(self._secret)})
        return self._timed(lambda: self._call("CreateHome", "s", text))

    def remove(self, name: str) -> None:
        """RemoveHome, to clean up."""
        self._call("RemoveHome", "s", name)

    def activate(self, name: str) -> float:
        """ActivateHome."""
        return self._timed(lambda: self._call("ActivateHome", "ss", name, self._secret))

    def deactivate(self, name: str) -> list[float]:
        """DeactivateHome, whoever holds references; empty if a busy service did it later itself."""
        return self._patiently(lambda: self._call("DeactivateHome", "s", name))

    def deactivate_all(self) -> None:
        """DeactivateAllHomes, to clean up."""
        self._patiently(lambda: self._call("DeactivateAllHomes"))

    def lock(self, name: str) -> float:
        """LockHome."""
        return self._timed(lambda: self._call("LockHome", "s", name))

    def unlock(self, name: str) -> float:
        """UnlockHome."""
        return self._timed(lambda: self._call("UnlockHome", "ss", name, self._secret))

    def acquire(self, name: str) -> tuple[float, Fd]:
        """AcquireHome, and the reference that keeps the home active."""
        replies: list[Reply] = []
        taken = self._timed(
            lambda: replies.append(self._call("AcquireHome", "ssb", name, self._secret, False))
        )
        return taken, replies[0].fds[0]

    def list_homes(self) -> float:
        """ListHomes."""
        return self._timed(lambda: self._call("ListHomes"))

    def lookup(self, member: str, name: str) -> float:
        """GetHomeByName or GetUserRecordByName."""
        return self._timed(lambda: self._call(member, "s", name))

    def storm(self, names: list[str]) -> float:
        """AcquireHome of all these homes at once; logins per second. All inactive again after."""
        barrier = Barrier(len(names) + 1)
        with ThreadPoolExecutor(len(names)) as people:
            logins = [people.submit(_log_in, barrier, name, self._secret) for name in names]
            barrier.wait()
            start = time.perf_counter()
            references = [login.result() for login in logins]
            taken = time.perf_counter() - start
        # With the references still held: a dropped one would start a deactivation of its own.
        self.deactivate_all()
        for reference in references:
            reference.close()
        return len(names) / taken

    def _call(self, member: str, signature: str = "", *body: object) -> Reply:
        return _call(self._client, member, signature, *body)

    def _timed(self, call: Callable[[], object]) -> float:
        taken = _seconds(call)
        self._measure_empty_call()
        return taken - statistics.median(self._empty)

    def _patiently(self, call: Callable[[], object]) -> list[float]:
        """The seconds of the attempt that was not refused as busy."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                return [self._timed(call)]
            except BusError as refusal:
                if refusal.name == NOT_ACTIVE:
                    return []
                if refusal.name != BUSY:
                    raise
            self.false_busy += 1
            time.sleep(BUSY_PAUSE_S)
        raise RuntimeError(f"still busy after {TIMEOUT_S:g} s")

    def _measure_empty_call(self) -> None:
        self._empty.append(_seconds(lambda: _empty_call(self._client)))


class UserDatabase:
    """GetUserRecord by name over varlink, as nss-systemd asks: NUL-terminated JSON."""

    def __init__(self) -> None:
        """Keep one connection for the look-ups that use it."""
        self._kept = _connect()

    def close(self) -> None:
        """End the kept connection."""
        self._kept.close()

    def lookup(self, name: str) -> float:
        """Over the kept connection; seconds."""
        return _seconds(lambda: _get_user_record(self._kept, name))

    def lookup_anew(self, name: str) -> float:
        """Over a new connection, opening and closing included; seconds."""

        def ask() -> None:
            with _connect() as connection:
                _get_user_record(connection, name)

        return _seconds(ask)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _call(client: Client, member: str, signature: str = "", *body: object) -> Reply:
    return client.call(NAME, PATH, MANAGER, member, signature, body, timeout_s=TIMEOUT_S)


def _empty_call(client: Client) -> None:
    client.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetId")


def _log_in(barrier: Barrier, name: str, secret: str) -> Fd:
    """One of many: connected before the start signal, as a waiting login would be."""
    with Client() as client:
        _empty_call(client)
        barrier.wait()
        return _call(client, "AcquireHome", "ssb", name, secret, False).fds[0]


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.connect(USERDB)
    return connection


def _get_user_record(connection: socket.socket, name: str) -> None:
    parameters = {"userName": name, "service": os.path.basename(USERDB)}
    call = {"method": "io.systemd.UserDatabase.GetUserRecord", "parameters": parameters}
    connection.sendall(json.dumps(call).encode() + b"\0")
    received = bytearray()
    while not received.endswith(b"\0"):
        chunk = connection.recv(1 << 16)
        if not chunk:
            raise RuntimeError("the user database closed the connection")
        received += chunk
    if b'"error"' in received:
        raise RuntimeError(f"no user record of {name}: {received.decode()}")
