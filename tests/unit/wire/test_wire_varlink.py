"""The varlink server as raw clients see it: framing, limits, garbage, clients that stop reading."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from homemgr.wire import varlink
from homemgr.wire.varlink import Limits, Peer, VarlinkError, VarlinkServer

DESCRIPTION = """interface org.example.Numbers

method Count(to: int) -> (number: int)
method Whoami() -> (uid: int, pid: int)
method Fail(how: string) -> ()
method Declared() -> ()

error NoSuchNumber(number: int)
"""

T = TypeVar("T")


class Numbers:
    """Answers from memory, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object], bool]] = []
        #: Replies of long answers that were made so far.
        self.made = 0
        self.reply = json.dumps({"number": 1, "filler": "x" * 1000}).encode()

    def handle(
        self, peer: Peer, method: str, parameters: dict[str, object], more: bool
    ) -> Iterable[bytes]:
        self.asked.append((method, parameters, more))
        member = method.removeprefix("org.example.Numbers.")
        if member == "Whoami":
            return [json.dumps({"uid": peer.uid, "pid": peer.pid}).encode()]
        if member == "Fail":
            if parameters["how"] == "bug":
                raise RuntimeError(f"quoting {parameters['secret']}")
            raise VarlinkError("org.example.Numbers.NoSuchNumber", {"number": 7})
        if member == "Declared":
            return []
        to = parameters.get("to")
        assert isinstance(to, int)
        if to > 1000:
            return self._replies(to)
        return [json.dumps({"number": number}).encode() for number in range(to)]

    def _replies(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            self.made += 1
            yield self.reply


class Running:
    """A server on an event loop in a thread of its own."""

    def __init__(self, path: Path, limits: Limits = Limits()) -> None:  # noqa: B008
        self.numbers = Numbers()
        self.path = str(path)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.server = VarlinkServer(
            {"org.example.Numbers": DESCRIPTION}, self.numbers.handle, limits
        )
        self.run(self.server.listen(self.path))

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(doing, self.loop).result(30)

    def stop(self) -> None:
        self.run(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Client:
    """A synchronous varlink client, as plain as they come."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, method: str, parameters: object = None, **flags: object) -> None:
        request = {"method": method, **flags}
        if parameters is not None:
            request["parameters"] = parameters
        self.socket.sendall(json.dumps(request).encode() + b"\0")

    def read(self) -> Any:
        while b"\0" not in self._buffer:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, parameters: object = None, **flags: object) -> Any:
        self.send(method, parameters, **flags)
        return self.read()

    def is_closed_by_server(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    before = len(os.listdir("/proc/self/fd"))
    started = Running(tmp_path / "org.example.Service")
    yield started
    started.stop()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.path) as connected:
        yield connected


def wait_until(claim: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.01)


# --- answers ----------------------------------------------------------------------------


def test_one_answer_without_more(client: Client, running: Running) -> None:
    assert client.call("org.example.Numbers.Count", {"to": 3}) == {"parameters": {"number": 0}}
    assert running.numbers.asked == [("org.example.Numbers.Count", {"to": 3}, False)]


def test_all_answers_with_more_and_the_last_ends_them(client: Client) -> None:
    client.send("org.example.Numbers.Count", {"to": 3}, more=True)
    assert [client.read() for _ in range(3)] == [
        {"parameters": {"number": 0}, "continues": True},
        {"parameters": {"number": 1}, "continues": True},
        {"parameters": {"number": 2}},
    ]


def test_requests_sent_ahead_are_answered_in_order(client: Client) -> None:
    for to in range(1, 60):
        client.send("org.example.Numbers.Count", {"to": to}, more=True)
    for to in range(1, 60):
        numbers = [client.read()["parameters"]["number"] for _ in range(to)]
        assert numbers == list(range(to))


def test_requests_behind_a_long_answer_are_not_forgotten(client: Client) -> None:
    client.send("org.example.Numbers.Count", {"to": 4000}, more=True)
    client.send("io.systemd.service.Ping")
    for index in range(4000):
        assert ("continues" in client.read()) == (index < 3999)
    assert client.read() == {"parameters": {}}


def test_request_in_pieces_is_put_together(client: Client) -> None:
    for byte in b'{"method":"io.systemd.service.Ping"}\0':
        client.socket.sendall(bytes([byte]))
    assert client.read() == {"parameters": {}}


def test_oneway_gets_no_answer(client: Client, running: Running) -> None:
    client.send("org.example.Numbers.Count", {"to": 1}, oneway=True)
    client.send("org.example.Numbers.Fail", {"how": "error"}, oneway=True)
    assert client.call("io.systemd.service.Ping") == {"parameters": {}}
    assert len(running.numbers.asked) == 2


def test_peer_is_whom_the_kernel_says(client: Client) -> None:
    answer = client.call("org.example.Numbers.Whoami")
    assert answer == {"parameters": {"uid": os.getuid(), "pid": os.getpid()}}


def test_errors_carry_name_and_parameters(client: Client) -> None:
    assert client.call("org.example.Numbers.Fail", {"how": "error"}) == {
        "error": "org.example.Numbers.NoSuchNumber",
        "parameters": {"number": 7},
    }


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("org.example.Numbers.Fail", {"how": "bug", "secret": "hunter2"}),
        ("org.example.Numbers.Declared", {}),
    ],
)
def test_bugs_become_an_error_that_reveals_nothing(
    client: Client, caplog: pytest.LogCaptureFixture, method: str, parameters: object
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.call(method, parameters)
    assert answer == {"error": "io.systemd.System", "parameters": {"errno": 5}}
    assert "failed" in caplog.text
    assert "hunter2" not in caplog.text
    assert client.call("io.systemd.service.Ping") == {"parameters": {}}


# --- the standard interfaces ------------------------------------------------------------


def test_service_tells_about_itself(client: Client) -> None:
    info = client.call("org.varlink.service.GetInfo")["parameters"]
    assert info["interfaces"] == [
        "io.systemd.service",
        "org.example.Numbers",
        "org.varlink.service",
    ]
    for interface in info["interfaces"]:
        answer = client.call(
            "org.varlink.service.GetInterfaceDescription", {"interface": interface}
        )
        assert answer["parameters"]["description"].startswith(f"interface {interface}\n")


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("org.example.Other.Count", {}, "InterfaceNotFound"),
        ("org.example.Numbers.Other", {}, "MethodNotFound"),
        ("Count", {}, "InterfaceNotFound"),
        ("", {}, "InterfaceNotFound"),
        ("io.systemd.service.Other", {}, "MethodNotFound"),
        ("org.varlink.service.GetInterfaceDescription", {}, "InvalidParameter"),
        (
            "org.varlink.service.GetInterfaceDescription",
            {"interface": "org.example.Other"},
            "InterfaceNotFound",
        ),
        ("io.systemd.service.SetLogLevel", {"level": "loud"}, "InvalidParameter"),
        ("io.systemd.service.SetLogLevel", {"level": 8}, "InvalidParameter"),
        ("io.systemd.service.SetLogLevel", {"level": -1}, "InvalidParameter"),
        ("io.systemd.service.SetLogLevel", {"level": True}, "InvalidParameter"),
    ],
)
def test_unknown_things_are_refused_by_the_right_name(
    client: Client, method: str, parameters: object, error: str
) -> None:
    assert client.call(method, parameters)["error"] == f"org.varlink.service.{error}"


def test_log_level_is_set_and_read(client: Client) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        assert client.call("io.systemd.service.SetLogLevel", {"level": 7}) == {"parameters": {}}
        assert root.level == logging.DEBUG
        for level in range(8):
            client.call("io.systemd.service.SetLogLevel", {"level": level})
            answer = client.call("io.systemd.service.GetLogLevel")
            assert answer == {"parameters": {"level": level}}
    finally:
        root.setLevel(before)


def test_environment_is_shown_to_who_may_see_it(client: Client) -> None:
    answer = client.call("io.systemd.service.GetEnvironment")
    assert f"PATH={os.environ['PATH']}" in answer["parameters"]["environment"]


# --- garbage and limits -----------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"hello\0",
        b"[]\0",
        b"{}\0",
        b'"text"\0',
        b"\xff\xfe{\0",
        b'{"method":7}\0',
        b'{"method":"a.b","parameters":[]}\0',
        b'{"method":"a.b","parameters":"x"}\0',
        b'{"method":"a.b","more":"yes"}\0',
        b'{"method":"a.b","upgrade":true}\0',
        b"[" * 100_000 + b"\0",
        b'{"method":"a.b","parameters":' + b'{"a":' * 50_000 + b"\0",
        b'{"a":' + b"9" * 50_000 + b"}\0",
        b'{"method":"io.systemd.service.Ping"} trailing\0',
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(running: Running, garbage: bytes) -> None:
    with Client(running.path) as good, Client(running.path) as bad:
        bad.socket.sendall(garbage)
        assert bad.is_closed_by_server()
        assert good.call("io.systemd.service.Ping") == {"parameters": {}}


def test_null_members_are_as_good_as_missing(client: Client) -> None:
    client.socket.sendall(
        b'{"method":"io.systemd.service.Ping","parameters":null,"more":null,"other":1}\0'
    )
    assert client.read() == {"parameters": {}}


def test_requests_up_to_the_limit_pass_and_beyond_do_not(running: Running) -> None:
    limits = running.server.limits
    limit = limits.root_request_bytes if os.getuid() == 0 else limits.request_bytes
    with Client(running.path) as fits:
        request = b'{"method":"io.systemd.service.Ping"}'
        fits.socket.sendall(request + b" " * (limit - len(request)) + b"\0")
        assert fits.read() == {"parameters": {}}
    with Client(running.path) as too_long:
        try:
            too_long.socket.sendall(b" " * (limit + 200_000))
        except (BrokenPipeError, ConnectionResetError):
            return
        assert too_long.is_closed_by_server()
    assert running.server.buffered_bytes.total() == 0


def test_client_that_stops_reading_costs_only_itself(running: Running) -> None:
    with Client(running.path) as stopped, Client(running.path) as other:
        stopped.send("org.example.Numbers.Count", {"to": 100_000}, more=True)
        # 100 MB of answers; wait until its socket is full.
        wait_until(lambda: bool(running.numbers.asked))
        started = time.monotonic()
        for _ in range(20):
            assert other.call("io.systemd.service.Ping") == {"parameters": {}}
        assert time.monotonic() - started < 1
        # Nothing of what it sends now is taken in.
        stopped.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stopped.socket.sendall(b'{"method":"io.systemd.service.Ping"}\0' * 200_000)
        assert running.server.buffered_bytes.total() < 200_000
    wait_until(lambda: running.server._count == 0)


def test_slow_reader_gets_everything_in_the_end(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send("org.example.Numbers.Count", {"to": 3000}, more=True)
    total = 0
    while True:
        total += 1
        if "continues" not in client.read():
            break
    assert total == 3000


def test_stalled_client_is_dropped_after_a_while(tmp_path: Path) -> None:
    running = Running(tmp_path / "socket", Limits(stall_s=0.2))
    with Client(running.path) as stopped:
        stopped.send("org.example.Numbers.Count", {"to": 100_000}, more=True)
        wait_until(lambda: running.server._count == 1 and bool(running.numbers.asked))
        wait_until(lambda: running.server._count == 0)
    running.stop()


def test_client_that_vanishes_is_forgotten(running: Running) -> None:
    for _ in range(20):
        with Client(running.path) as client:
            client.send("org.example.Numbers.Count", {"to": 5000}, more=True)
    wait_until(lambda: running.server._count == 0)


def test_thousand_clients_at_once_are_all_answered(running: Running) -> None:
    clients = [Client(running.path) for _ in range(1000)]
    for client in clients:
        client.send("io.systemd.service.Ping")
    for client in clients:
        assert client.read() == {"parameters": {}}
        client.socket.close()
    wait_until(lambda: running.server._count == 0)


def test_beyond_the_limit_the_idlest_connection_goes(tmp_path: Path) -> None:
    running = Running(tmp_path / "socket", Limits(sessions=3))
    with Client(running.path) as first, Client(running.path) as second, Client(running.path) as _:
        wait_until(lambda: running.server._count == 3)
        first.call("io.systemd.service.Ping")
        with Client(running.path) as fourth:
            assert fourth.call("io.systemd.service.Ping") == {"parameters": {}}
            assert second.is_closed_by_server()
            assert first.call("io.systemd.service.Ping") == {"parameters": {}}
    running.stop()


def test_unfinished_requests_are_limited_in_sum(tmp_path: Path) -> None:
    running = Running(tmp_path / "socket", Limits(buffered_bytes=100_000))
    with Client(running.path) as first, Client(running.path) as second:
        first.socket.sendall(b" " * 60_000)
        wait_until(lambda: running.server.buffered_bytes.total() == 60_000)
        second.socket.sendall(b" " * 60_000)
        assert second.is_closed_by_server()
        assert running.server.buffered_bytes.total() == 60_000
        first.socket.sendall(b'{"method":"io.systemd.service.Ping"}\0')
        assert first.read() == {"parameters": {}}
    running.stop()


def test_unfinished_requests_of_one_user_leave_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(tmp_path / "socket", Limits(buffered_bytes_per_uid=100_000))
    uids = iter((1000, 1000, 1001))
    monkeypatch.setattr(varlink, "of_socket", lambda _connected: Peer(next(uids), 1))
    with Client(running.path) as first, Client(running.path) as second:
        first.socket.sendall(b" " * 60_000)
        wait_until(lambda: running.server.buffered_bytes[1000] == 60_000)
        second.socket.sendall(b" " * 60_000)
        assert second.is_closed_by_server()
        with Client(running.path) as other:
            other.socket.sendall(b" " * 60_000)
            wait_until(lambda: running.server.buffered_bytes[1001] == 60_000)
            other.socket.sendall(b'{"method":"io.systemd.service.Ping"}\0')
            assert other.read() == {"parameters": {}}
    wait_until(lambda: not running.server.buffered_bytes)
    running.stop()


def test_short_requests_sent_faster_than_answered_wait_in_the_kernel(tmp_path: Path) -> None:
    running = Running(tmp_path / "socket")
    most = 0

    def watched(peer: Peer, size: int) -> None:
        nonlocal most
        buffer(peer, size)
        most = max(most, running.server.buffered_bytes.total())

    buffer = running.server.buffer
    running.server.buffer = watched  # type: ignore[method-assign]
    with Client(running.path) as client:
        request = b'{"method":"io.systemd.service.Ping","oneway":true}\0'
        client.socket.sendall(request * 100_000)
        assert client.call("io.systemd.service.Ping") == {"parameters": {}}
    assert most < 200_000
    running.stop()


def test_long_answers_are_made_as_they_are_taken(tmp_path: Path) -> None:
    running = Running(tmp_path / "socket")
    with Client(running.path) as client:
        request = {"method": "org.example.Numbers.Count", "more": True}
        request["parameters"] = {"to": 100_000}
        client.socket.sendall(json.dumps(request).encode() + b"\0")
        time.sleep(0.3)
        assert 0 < running.numbers.made < 5000
        for _ in range(99_999):
            assert client.read()["continues"]
        assert "continues" not in client.read()
    running.stop()


# --- the socket -------------------------------------------------------------------------


def test_socket_is_for_everybody_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "org.example.Service"
    server = Running(path)
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o666
    assert os.listdir(tmp_path) == [path.name]
    server.stop()
    assert os.listdir(tmp_path) == []


def test_successor_takes_over_without_a_gap_and_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "org.example.Service"
    first = Running(path)
    second = Running(path)
    # The first must not remove what is no longer its own.
    first.stop()
    with Client(str(path)) as client:
        assert client.call("io.systemd.service.Ping") == {"parameters": {}}
    second.stop()
    assert os.listdir(tmp_path) == []


def test_listening_where_one_may_not_leaves_nothing(tmp_path: Path) -> None:
    async def listen() -> None:
        await VarlinkServer({}, Numbers().handle).listen(str(tmp_path / "no" / "socket"))

    with pytest.raises(OSError, match="No such file"):
        asyncio.run(listen())
    assert os.listdir(tmp_path) == []
