"""Two services and the real command line between them: progress, ^C, callers that leave, starts."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.record.signature import PublicKey
from homemgr.wire.client import Client
from tests import homes, volumes
from tests.service import people
from tests.service.site import ROOT, Service, Site, wait_until

MACHINE_ID = Path("/etc/machine-id")
PROGRAM = "import sys; from homemgr.entry import homemgr; sys.exit(homemgr())"
MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
#: Files of a home, and the size of each (bytes).
COUNT, SIZE = 60, 200_000


@pytest.fixture(scope="module")
def here(new_site: Callable[..., Site]) -> Iterator[Service]:
    """The machine where homes begin."""
    service = Service(new_site())
    yield service
    service.close()


@pytest.fixture(scope="module")
def there(
    new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Another machine: it has an id of its own."""
    identity = tmp_path_factory.mktemp("there") / "machine-id"
    identity.write_text(f"{uuid.uuid4().hex}\n")

    class Other(Service):
        def start(self) -> None:
            volumes.show_file(identity, MACHINE_ID)
            try:
                super().start()
            finally:
                mounts.umount2(str(MACHINE_ID), 0)

    service = Other(new_site())
    yield service
    service.close()


@pytest.fixture
def user(here: Service, request: pytest.FixtureRequest) -> str:
    """A user with a home that takes a moment to send."""
    name = f"u{uuid.uuid4().hex[:8]}"
    here.create(name)
    top = here.site.base / f"{name}.homedir"
    for number in range(COUNT):
        data = random.Random(number).randbytes(SIZE)
        (top / f"file-{number:02}").write_bytes(data)
    homes.give_away(top)
    return name


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


@pytest.fixture
def line(here: Service, there: Service, tmp_path: Path) -> Line:
    return Line(here, there, tmp_path)


def stages(service: Service, user: str) -> list[Path]:
    return list(service.site.base.glob(f".#homemgr-in-{user}.*"))


def phases(service: Service) -> dict[str, str]:
    (text,) = service.client.call(*MANAGER, "ListTransfers", "", ()).body
    return {row["user"]: row["phase"] for row in json.loads(str(text))}


def assert_idle(*services: Service) -> None:
    for service in services:
        wait_until(lambda service=service: service.workers() == [], "all workers to end", 20)  # type: ignore[misc]


def assert_usable(service: Service, user: str) -> None:
    service.activate(user)
    assert (service.path_of(user) / "file-00").stat().st_size == SIZE
    service.deactivate(user)


def test_interrupted_on_the_terminal_it_ends_in_order_and_goes_on(
    here: Service, there: Service, line: Line, user: str
) -> None:
    line.slow_from(COUNT * SIZE // 2)
    with line.moving(user) as screen:
        screen.wait_for(r"\[=+> +\] +\d+%.* of 11\.\d MiB")
        wait_until(lambda: any(path.glob("file-0*") for path in stages(there, user)), "some of it")
        screen.program.send_signal(signal.SIGINT)
        assert screen.end() == 130
    assert "Ending it" in screen.shown
    assert "Run the same command again" in screen.shown
    assert_idle(here, there)
    assert (phases(here)[user], phases(there)[user]) == ("sending", "receiving")
    assert user not in there.states()
    assert_usable(here, user)
    line.speed_up()
    line.move(user)
    assert_usable(there, user)
    assert here.state(user) == "absent"


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


def test_a_caller_who_leaves_the_bus_calls_off_what_he_began(
    here: Service, there: Service, user: str
) -> None:
    line_of_sender = here.site.log.read_text().count("its caller is gone")
    line_of_receiver = there.site.log.read_text().count("its caller is gone")
    with here.new_client() as sender, there.new_client() as receiver:
        trust = json.dumps({"trust": [fingerprint(here)]})
        with (
            begin(receiver, "ReceiveHome", "s", trust) as one,
            begin(sender, "SendHome", "ss", user, "{}") as other,
        ):
            forward(one, other, COUNT * SIZE // 2)
            assert here.error("RemoveHome", "s", user) == "org.homemgr1.Error.TransferBusy"
            sender.close()
            receiver.close()
            # The stream stays: nothing but the caller is gone.
            assert_idle(here, there)
    assert here.site.log.read_text().count("its caller is gone") == line_of_sender + 1
    assert there.site.log.read_text().count("its caller is gone") == line_of_receiver + 1
    assert_usable(here, user)
    here.call("RemoveHome", "s", user)


def fingerprint(service: Service) -> str:
    """Of the key with which a machine introduces itself."""
    key = PublicKey.from_pem((service.site.records / "local.public").read_bytes())
    return key.fingerprint


def test_a_start_leaves_alone_what_is_on_its_way_and_what_has_left(
    here: Service, there: Service, line: Line, user: str
) -> None:
    dead = there.site.base / ".#homemgr-in-ghost.homedir.01234567"
    line.slow_from(COUNT * SIZE // 2)
    with line.moving(user) as screen:
        wait_until(lambda: any(path.glob("file-0*") for path in stages(there, user)), "some of it")
        for service in (here, there):
            service.kill()
        screen.end()
    dead.mkdir(0o700)
    (dead / "file").write_text("of a transfer nobody knows")
    (arrived,) = stages(there, user)
    before = sorted(os.listdir(arrived))
    here.start()
    there.start()
    assert not dead.exists()
    assert sorted(os.listdir(arrived)) == before
    assert_usable(here, user)
    line.speed_up()
    line.move(user)
    (left,) = here.site.base.glob(f".#homemgr-left-{user}.*")
    here.restart()
    there.restart()
    assert left.is_dir()
    assert here.state(user) == "absent"
    assert_usable(there, user)


def test_the_newer_record_in_a_home_leaves_with_it(
    here: Service, there: Service, line: Line, user: str
) -> None:
    """Of a home that was used elsewhere: what this machine has of it is older."""
    path = here.site.records / f"{user}.identity"
    older = path.read_bytes()
    new, old = people.secret(people.OTHER_PASSWORD), people.secret(people.PASSWORD)
    here.call("ChangePasswordHome", "sss", user, new, old)
    here.stop()
    path.write_bytes(older)
    here.start()
    line.move(user)
    there.activate(user, people.OTHER_PASSWORD)
    there.deactivate(user)
