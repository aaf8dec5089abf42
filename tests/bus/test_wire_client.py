"""The synchronous client: what it costs to load, how it fails, what servers may do to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.address import system_bus, unix_sockets
from homemgr.wire.client import Client
from homemgr.wire.codec import encode
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError

if TYPE_CHECKING:
    from conftest import PrivateBus

ERROR = "org.freedesktop.DBus.Error."
DRIVER = (BUS_NAME, BUS_PATH, BUS_NAME)
#: What the command line cannot afford on every start.
TOO_SLOW = ("asyncio", "dbus_next", "socket", "dataclasses", "logging", "subprocess", "inspect")


def test_loading_it_loads_nothing_slow() -> None:
    script = "import sys, homemgr.wire.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert sorted(set(TOO_SLOW) & set(loaded) - set(bare)) == []


def test_one_connection_serves_many_calls(private_bus: PrivateBus) -> None:
    with Client(private_bus.address) as client:
        names = {str(client.call(*DRIVER, "GetId").body) for _ in range(10)}
        assert len(names) == 1
        assert client.call(*DRIVER, "NameHasOwner", "s", ("a.b",)).body == [False]


def test_errors_of_peers_keep_their_names(private_bus: PrivateBus) -> None:
    with Client(private_bus.address) as client:
        with pytest.raises(BusError) as caught:
            client.call("a.b", "/", "a.b", "C")
        assert caught.value.name == ERROR + "ServiceUnknown"
        assert str(caught.value).startswith(ERROR)


def test_address_comes_from_the_environment(
    private_bus: PrivateBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", private_bus.address)
    with Client() as client:
        assert client.call(*DRIVER, "GetId").body
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS")
    assert system_bus() == "unix:path=/run/dbus/system_bus_socket"


def test_addresses_are_tried_in_turn(private_bus: PrivateBus) -> None:
    with Client("unix:path=/no/such/bus;" + private_bus.address) as client:
        assert client.call(*DRIVER, "GetId").body


def test_addresses_are_read_as_the_specification_says() -> None:
    assert unix_sockets("unix:path=/a%20b,guid=00;tcp:host=x;unix:abstract=name") == [
        "/a b",
        "\0name",
    ]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("unix:path=/no/such/bus", "NoServer"),
        ("unix:path=/etc/passwd", "NoServer"),
        ("tcp:host=localhost,port=1", "BadAddress"),
        ("nonsense", "BadAddress"),
    ],
)
def test_unreachable_bus_has_a_fitting_name(address: str, name: str) -> None:
    with pytest.raises(BusError) as caught:
        Client(address).call(*DRIVER, "GetId")
    assert caught.value.name == ERROR + name
    assert address in caught.value.message


def test_values_that_cannot_be_sent_are_refused_before_connecting() -> None:
    with pytest.raises(BusError) as caught:
        Client("unix:path=/no/such/bus").call(*DRIVER, "X", "s", ("nul\0",))
    assert caught.value.name == ERROR + "InvalidArgs"


def test_first_call_may_carry_descriptors(private_bus: PrivateBus) -> None:
    with Client(private_bus.address) as client, Fd(os.open("/dev/null", os.O_RDONLY)) as file:
        with pytest.raises(BusError) as caught:
            client.call("a.b", "/", "a.b", "C", "h", (0,), fds=(file,))
        assert caught.value.name == ERROR + "ServiceUnknown"
        assert file.is_open


def test_bus_that_went_is_said_so_and_can_be_found_again(private_bus: PrivateBus) -> None:
    with Client(private_bus.address) as client:
        client.call(*DRIVER, "GetId")
        private_bus.kill()
        with pytest.raises(BusError) as caught:
            client.call(*DRIVER, "GetId")
        assert caught.value.name == ERROR + "Disconnected"
        with pytest.raises(BusError) as caught:
            client.call(*DRIVER, "GetId")
        assert caught.value.name == ERROR + "NoServer"


# --- servers that misbehave ---------------------------------------------------------------


@contextmanager
def server(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A bus that treats its one client as told."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connected, _ = listener.accept()
        with connected:
            connected.settimeout(10)
            behave(connected)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"unix:path={path}"
    thread.join()
    listener.close()


def welcome(connected: socket.socket) -> None:
    """Authenticate, and answer Hello."""
    received = b""
    while b"Hello" not in received:
        received += connected.recv(4096)
    connected.sendall(b"OK 0123\r\nAGREE_UNIX_FD\r\n")


def reply(serial: int, signature: str = "", *values: object) -> bytes:
    request = messages.parse(messages.call(serial, ("a.b", "/", "a.b", "C")))
    return messages.answer(99, request, signature, encode(signature, values))


def call(address: str, timeout_s: float = 5) -> str:
    with Client(address) as client, pytest.raises(BusError) as caught:
        client.call(*DRIVER, "GetId", timeout_s=timeout_s)
    return caught.value.name.removeprefix(ERROR)


def test_hanging_up_while_authenticating(tmp_path: Path) -> None:
    with server(tmp_path / "s", lambda connected: connected.recv(10)) as address:
        assert call(address) == "Disconnected"


def test_refusing_the_authentication(tmp_path: Path) -> None:
    def refuse(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(b"REJECTED EXTERNAL\r\n")
        connected.recv(4096)

    with server(tmp_path / "s", refuse) as address:
        assert call(address) == "AuthFailed"


def test_lines_without_end(tmp_path: Path) -> None:
    def ramble(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(b"O" * 100_000)

    with server(tmp_path / "s", ramble) as address:
        assert call(address) == "Disconnected"


def test_refusing_hello(tmp_path: Path) -> None:
    def refuse(connected: socket.socket) -> None:
        welcome(connected)
        request = messages.parse(messages.call(1, (*DRIVER, "Hello")))
        name = ERROR + "LimitsExceeded"
        connected.sendall(messages.error(5, request, name, encode("s", ("full",))))

    with server(tmp_path / "s", refuse) as address:
        assert call(address) == "LimitsExceeded"


@pytest.mark.parametrize(
    "nonsense",
    [b"x" * 100, b"l\2\0\2" + bytes(12), b"l\2\0\1\xff\xff\xff\xff" + bytes(8)],
)
def test_speaking_nonsense(tmp_path: Path, nonsense: bytes) -> None:
    def babble(connected: socket.socket) -> None:
        welcome(connected)
        connected.sendall(nonsense)
        connected.recv(100)

    with server(tmp_path / "s", babble) as address:
        assert call(address) == "Disconnected"


def test_staying_silent(tmp_path: Path) -> None:
    def idle(connected: socket.socket) -> None:
        welcome(connected)
        while connected.recv(100):
            continue

    with server(tmp_path / "s", idle) as address:
        assert call(address, timeout_s=0.2) == "NoReply"


def test_answers_to_others_and_in_pieces_are_sorted_out(tmp_path: Path) -> None:
    def dribble(connected: socket.socket) -> None:
        welcome(connected)
        stream = reply(1, "s", ":1.1") + reply(77, "s", "not ours") + reply(2, "s", "ours")
        for at in range(0, len(stream), 7):
            connected.sendall(stream[at : at + 7])

    with server(tmp_path / "s", dribble) as address, Client(address) as client:
        assert client.call(*DRIVER, "GetId").body == ["ours"]


def test_malformed_answer_is_an_error_not_a_crash(tmp_path: Path) -> None:
    def spoil(connected: socket.socket) -> None:
        welcome(connected)
        connected.sendall(reply(1, "s", ":1.1") + reply(2, "u", 9).replace(b"\1u\0", b"\1s\0", 1))

    with server(tmp_path / "s", spoil) as address:
        assert call(address) in ("InconsistentMessage", "Disconnected")


def test_who_waits_can_do_something_else_meanwhile(private_bus: PrivateBus) -> None:
    idle: list[str] = []
    with Client(private_bus.address) as client:
        # A call to ourselves that nobody answers: what comes next is silence.
        name = str(client.call(*DRIVER, "RequestName", "su", ("a.b", 0)).body)
        client.on_idle = lambda: idle.append(name)
        with pytest.raises(BusError) as caught:
            client.call("a.b", "/", "a.b", "Never", timeout_s=0.5)
        assert caught.value.name == ERROR + "NoReply"
        assert 2 <= len(idle) <= 5


def test_a_call_can_be_made_while_another_waits(private_bus: PrivateBus) -> None:
    """What is told arrives, and takes nobody's answer away."""
    heard: list[str] = []
    with Client(private_bus.address) as client, Client(private_bus.address) as other:
        other.call(*DRIVER, "RequestName", "su", ("a.b", 0))
        rule = "type='signal',member='NameOwnerChanged',arg0='c.d'"
        client.call(*DRIVER, "AddMatch", "s", (rule,))
        client.on_signal = lambda message: heard.append(message.member)

        def idle() -> None:
            client.tell(*DRIVER, "ListNames")
            other.call(*DRIVER, "RequestName", "su", ("c.d", 0))

        client.on_idle = idle
        with pytest.raises(BusError) as caught:
            client.call("a.b", "/", "a.b", "Never", timeout_s=0.5)
        assert caught.value.name == ERROR + "NoReply"
        client.on_idle = None
        assert client.call(*DRIVER, "NameHasOwner", "s", ("a.b",)).body == [True]
    assert heard[0] == "NameOwnerChanged"
