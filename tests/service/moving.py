"""Two services as two machines, and the real command line between them.

Knows how a command is started, slowed down and watched; what has to be true is the tests'.
"""

from __future__ import annotations

import json
import os
import pty
import random
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.record.signature import PublicKey
from homemgr.wire.client import Client
from tests import homes, volumes
from tests.service.site import ROOT, Service, Site, wait_until

MACHINE_ID = Path("/etc/machine-id")
PROGRAM = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"
MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")


class OtherMachine(Service):
    """A service on a machine with an id of its own."""

    def __init__(self, site: Site, identity: Path) -> None:
        """Start it; ``identity`` is the file that it takes for /etc/machine-id."""
        self._identity = identity
        super().__init__(site)

    def start(self, *under: str) -> None:
        """Start it where it reads that file."""
        volumes.show_file(self._identity, MACHINE_ID)
        try:
            super().start(*under)
        finally:
            mounts.umount2(str(MACHINE_ID), 0)


def settle(service: Service, name: str, count: int, size: int) -> None:
    """Make a user with so many files of so many bytes."""
    service.create(name)
    top = service.site.base / f"{name}.homedir"
    for number in range(count):
        (top / f"file-{number:02}").write_bytes(random.Random(number).randbytes(size))
    homes.give_away(top)


class Line:
    """The way between the two, and the command."""

    def __init__(self, here: Service, there: Service, directory: Path) -> None:
        self._here, self._there = here, there
        self._directory = directory

    def slow_from(self, count: int) -> None:
        """What the sender says after so many bytes takes seconds to arrive."""
        (self._directory / "limit").write_text(str(count))

    def speed_up(self) -> None:
        """It does not any more."""
        (self._directory / "limit").unlink()

    def command(self, user: str) -> tuple[list[str], dict[str, str]]:
        """Words and environment of the command that moves a home."""
        own = [sys.executable, "-m", "tests.service.slow_line"]
        ssh = shlex.join([*own, self._there.site.bus_address, str(self._directory)])
        remote = shlex.join([sys.executable, "-c", PROGRAM])
        words = ["migrate", user, "elsewhere", "--trust", f"--ssh={ssh}", f"--remote={remote}"]
        environment = {
            **os.environ,
            "DBUS_SYSTEM_BUS_ADDRESS": self._here.site.bus_address,
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
        }
        return [sys.executable, "-c", PROGRAM, *words], environment

    def move(self, user: str) -> str:
        """Move a home; gives what was said."""
        argv, environment = self.command(user)
        done = subprocess.run(
            argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def moving(self, user: str) -> Iterator[Screen]:
        """The command on a terminal."""
        argv, environment = self.command(user)
        ours, theirs = pty.openpty()
        program = subprocess.Popen(
            argv, env=environment, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        try:
            yield Screen(program, ours)
        finally:
            program.kill()
            program.wait()
            os.close(ours)


class Screen:
    """What a program shows on its terminal."""

    def __init__(self, program: subprocess.Popen[bytes], terminal: int) -> None:
        self.program = program
        self._terminal = terminal
        self.shown = ""

    def wait_for(self, pattern: str, within_s: float = 30.0) -> None:
        """Read until it shows that."""
        deadline = time.monotonic() + within_s
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown
            self._read()

    def end(self) -> int:
        """Read until it ends; gives its exit code."""
        while self.program.poll() is None:
            self._read()
        self._read()
        return self.program.returncode

    def _read(self) -> None:
        if select.select([self._terminal], [], [], 0.05)[0]:
            try:
                self.shown += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                time.sleep(0.01)


def stages(service: Service, user: str) -> list[Path]:
    return list(service.site.base.glob(f".#homemgr-in-{user}.*"))


def phases(service: Service) -> dict[str, str]:
    (text,) = service.client.call(*MANAGER, "ListTransfers", "", ()).body
    return {row["user"]: row["phase"] for row in json.loads(str(text))}


def assert_idle(*services: Service) -> None:
    for service in services:
        wait_until(lambda service=service: service.workers() == [], "all workers to end", 20)  # type: ignore[misc]


def assert_usable(service: Service, user: str) -> None:
    """The password opens it, and the files are there."""
    service.activate(user)
    assert (service.path_of(user) / "file-00").exists()
    service.deactivate(user)


def begin(client: Client, member: str, signature: str, *arguments: object) -> socket.socket:
    """Begin a job over a stream; gives the other end of it."""
    ours, theirs = socket.socketpair()
    with Fd(theirs.detach()) as stream:
        kinds, body = f"{signature}hh", (*arguments, 0, 1)
        client.call(*MANAGER, member, kinds, body, fds=(stream, stream))
    return ours


def forward(one: socket.socket, other: socket.socket, count: int) -> None:
    """Let both talk until one of them has said so many bytes."""
    ways = {one: other, other: one}
    while count > 0:
        for end in select.select([*ways], [], [], 10)[0]:
            data = end.recv(65536)
            ways[end].sendall(data)
            count -= len(data)


def fingerprint(service: Service) -> str:
    """Of the key with which a machine introduces itself."""
    key = PublicKey.from_pem((service.site.records / "local.public").read_bytes())
    return key.fingerprint
