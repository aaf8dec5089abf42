"""What is said to the service manager, read from the socket it would read from."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.wire import notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield receiver


def test_state_is_one_datagram_of_assignments(manager: socket.socket) -> None:
    assert notify.notify(READY="1", STATUS="Two homes\nREADY=0")
    # A line break in a status must not become an assignment.
    assert manager.recv(1000) == b"READY=1\nSTATUS=Two homes READY=0"


def test_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"homemgr-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify.notify(WATCHDOG="1")
        assert receiver.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/no/such/socket"])
def test_nobody_to_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.notify(READY="1")


def test_stored_descriptor_is_sent_with_its_name_and_stays_ours(manager: socket.socket) -> None:
    reader, writer = os.pipe()
    with Fd(reader) as kept, Fd(writer) as other:
        assert notify.store("reference-alice", kept)
        data, ancillary, _, _ = manager.recvmsg(1000, socket.CMSG_SPACE(16))
        assert data == b"FDSTORE=1\nFDNAME=reference-alice\nFDPOLL=0"
        numbers = array.array("i", ancillary[0][2])
        with Fd(numbers[0]) as received:
            os.write(other.fileno(), b"x")
            assert os.read(received.fileno(), 1) == b"x"
        assert kept.is_open
    assert notify.unstore("reference-alice")
    assert manager.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=reference-alice"


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("180000000", None, 180.0),
        ("180000000", "own", 180.0),
        ("180000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_watchdog_interval_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert notify.watchdog_interval_s() == expected


TAKE_BACK = """
import os
os.environ["LISTEN_PID"] = str(os.getpid())
from homemgr.wire import notify
found = notify.stored()
for name, fds in sorted(found.items()):
    for fd in fds:
        print(name, os.read(fd.fileno(), 10).decode(), os.get_inheritable(fd.fileno()))
        fd.close()
print(notify.stored(), "LISTEN_FDS" in os.environ)
"""


def test_descriptors_handed_over_are_taken_back_by_name() -> None:
    # A process of its own: the numbers 3 and up have to be free there.
    files = []
    for text in (b"one", b"two"):
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)
        files.append(reader)
    script = f"exec {sys.executable} -c '{TAKE_BACK}' 3<&{files[0]} 4<&{files[1]}"
    environment = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "alice:alice"}
    shown = subprocess.run(
        ["bash", "-c", script],
        pass_fds=files,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for number in files:
        os.close(number)
    assert shown.splitlines() == ["alice one False", "alice two False", "{} False"]


def test_descriptors_meant_for_another_process_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert notify.stored() == {}
