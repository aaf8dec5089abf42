"""More jobs than a caller may have: refused with a clear word, and nothing of them stays."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homemgr.bus.homemgr1 import MANAGER, NAME, PATH
from homemgr.daemon.activity import MAX_PER_CALLER, MAX_PER_UID
from homemgr.files import Fd
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
from tests.service.authority import Authority
from tests.service.bus import STRANGERS
from tests.service.site import Service, short, wait_until

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def stream() -> Iterator[Fd]:
    """One end of a connection over which nothing comes."""
    ours, theirs = socket.socketpair()
    with ours, Fd(theirs.detach()) as fd:
        yield fd


def receive(client: Client, fd: Fd) -> BusError | None:
    """Begin to receive a home; the refusal, if it is one."""
    with fd.duplicate() as read, fd.duplicate() as write:
        try:
            client.call(NAME, PATH, MANAGER, "ReceiveHome", "shh", ("{}", read, write))
        except BusError as error:
            return error
    return None


def open_files(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.pid}/fd"))


def test_jobs_beyond_the_limit_are_refused_and_leave_nothing(service: Service) -> None:
    before = open_files(service)
    with stream() as fd, service.new_client() as client:
        begun = [receive(client, fd) for _ in range(MAX_PER_CALLER)]
        assert begun == [None] * MAX_PER_CALLER
        with_all = open_files(service)
        for _ in range(5):
            refusal = receive(client, fd)
            assert refusal is not None
            assert short(refusal.name) == "TooManyOperations"
            assert "wait for the end of one" in refusal.message
        assert open_files(service) <= with_all
        # Whoever logs in meanwhile is served.
        service.create("anna")
        service.activate("anna")
        service.deactivate("anna")
    wait_until(lambda: open_files(service) <= before, "all descriptors to be closed", 20)


#: One user with several connections; modules are loaded as root, who alone may read them. Nothing
#: comes over the stream: in a pipe the receivers would read each other's words, and end.
_CROWD = """
import json, os, socket, sys
from homemgr.bus.homemgr1 import MANAGER, NAME, PATH
from homemgr.files import Fd
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
uid, address, connections, each = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
ours, theirs = socket.socketpair()
stream = Fd(theirs.detach())
refusals = []
clients = [Client(address) for _ in range(connections)]
for client in clients:
    for _ in range(each):
        try:
            client.call(NAME, PATH, MANAGER, "ReceiveHome", "shh", ("{}", stream, stream))
        except BusError as error:
            refusals.append([error.name, error.message])
print(json.dumps(refusals), flush=True)
for one in (*clients, stream, ours):
    one.close()
"""


def test_a_user_gets_no_more_with_more_connections(own_service: Service) -> None:
    authority = Authority()
    authority.granting.set()
    connections, each = 3, 12
    argv = [sys.executable, "-c", _CROWD, str(STRANGERS[0]), own_service.site.bus_address]
    with authority.on(own_service.site.bus_address):
        crowd = subprocess.run(
            [*argv, str(connections), str(each)], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
    refusals = json.loads(crowd.stdout)
    assert len(refusals) == connections * each - MAX_PER_UID
    assert {name for name, _ in refusals} == {"org.freedesktop.home1.TooManyOperations"}
    assert all(f"uid {STRANGERS[0]} run already" in message for _, message in refusals)
