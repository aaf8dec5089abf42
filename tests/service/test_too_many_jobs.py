"""More jobs than a caller may have: refused with a clear word, and nothing of them stays."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from homemgr.bus.homemgr1 import MANAGER, NAME, PATH
from homemgr.daemon.activity import MAX_PER_CALLER
from homemgr.files import Fd
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
from tests.service.site import Service, short, wait_until


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
