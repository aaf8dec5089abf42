"""The service is killed, at any moment; homes are usable or cleanly absent, sessions go on."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import logins, users
from .box import wait_for
from .users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .box import Box
    from .terminal import Terminal
    from .users import User

# Spread over what an operation takes here (40 to 120 ms), with a few beyond its end.
DELAYS_S = [0.01, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.14]
PLACES = ("/home/.homemgr", "/home", "/var/lib/systemd/home", "/var/cache/systemd/home")


@pytest.fixture(params=["service", "workers"])
def struck(
    request: pytest.FixtureRequest, box: Box
) -> Callable[[Sequence[str], dict[str, str], float], int]:
    """Runs a command and, after a delay, kills the service, or only the worker of the job.

    Returns the exit code of the command when the service is there again.
    """

    def run(argv: Sequence[str], env: dict[str, str], delay_s: float) -> int:
        inside = box.main_pid()
        main = box.pid_outside(inside)
        with box.background(argv, env=env) as command:
            time.sleep(delay_s)
            # The child of the service is the job server, its children are the workers.
            for pid in [main] if request.param == "service" else grandchildren(main):
                slay(pid)
            code = command.wait(60)
        wait_for_service(box, after=inside if request.param == "service" else 0)
        return code

    return run


def slay(pid: int) -> None:
    """SIGKILL, to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """The processes that one has started."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def grandchildren(parent: int) -> list[int]:
    """The processes that its children have started."""
    return [found for child in children(parent) for found in children(child)]


def wait_for_service(box: Box, after: int) -> None:
    """A main process other than the former one is ready."""
    wait_for(
        lambda: (
            box.main_pid() not in {0, after}
            and box.systemctl("is-active", box.service, check=False).stdout == "active\n"
        ),
        "the service is back",
    )


def traces(box: Box, name: str) -> list[str]:
    """All that disks hold of a user, temporary names of unfinished operations included."""
    found = [path for place in PLACES for path in box.path(place).glob(f"*{name}*")]
    # The mount point of a home is an empty directory of root; it may stay.
    return [str(path) for path in found if path.name != name or path.parent.name != "home"]


def assert_usable(user: User) -> None:
    """The home opens with its password, shows its files, and closes."""
    if user.state() in {"active", "lingering"}:
        user.homectl("deactivate")
    user.homectl("activate")
    assert user.is_mounted()
    assert user.box.path(f"{user.home}/.bashrc").stat().st_uid == user.uid
    user.homectl("deactivate")
    assert not user.is_mounted()
    assert set(user.owners_on_disk()) == {NOBODY}
    unfinished = [path for path in traces(user.box, user.name) if "/.#" in path]
    assert unfinished == []


def assert_absent(box: Box, name: str) -> None:
    """Nothing is left of a user that does not exist."""
    wait_for(lambda: not traces(box, name), f"nothing is left of {name}")
    assert box.run(["getent", "passwd", name], check=False).code == 2


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nothing_left")
class TestKilled:
    """Each operation is struck at several moments; then the home is judged."""

    def test_create(self, box: Box, struck: Callable[..., int]) -> None:
        for number, delay_s in enumerate(DELAYS_S):
            name = f"carol{number}"
            argv = ["homectl", "create", name, *users.CREATE]
            code = struck(argv, {"NEWPASSWORD": "pw"}, delay_s)
            carol = users.User(box, name, "pw")
            if carol.state() == "":
                assert code != 0, f"create of {name} was reported as done"
                assert_absent(box, name)
                carol = users.create(box, name=name, password="pw")
            assert_usable(carol)
            users.remove(carol)

    def test_activate(self, alice: User, struck: Callable[..., int]) -> None:
        for delay_s in DELAYS_S:
            code = struck(["homectl", "activate", alice.name], secret(alice), delay_s)
            if code == 0:
                assert alice.state() == "active"
                assert alice.is_mounted()
            assert_usable(alice)

    def test_deactivate(self, alice: User, struck: Callable[..., int]) -> None:
        for delay_s in DELAYS_S:
            alice.homectl("activate")
            struck(["homectl", "deactivate", alice.name], {}, delay_s)
            assert alice.is_mounted() == (alice.state() in {"active", "lingering"})
            assert_usable(alice)

    def test_passwd(self, alice: User, struck: Callable[..., int]) -> None:
        # Fewer than elsewhere: the question which password is right may cost three seconds.
        for number, delay_s in enumerate(DELAYS_S[::2]):
            old, new = alice.password, f"next password {number}"
            env = {"PASSWORD": old, "NEWPASSWORD": new}
            code = struck(["homectl", "passwd", alice.name], env, delay_s)
            alice.password = new if opens(alice, new) else old
            assert alice.password == new or code != 0
            assert_usable(alice)

    def test_update(self, alice: User, struck: Callable[..., int]) -> None:
        for number, delay_s in enumerate(DELAYS_S):
            argv = ["homectl", "update", alice.name, f"--real-name=Number {number}"]
            code = struck(argv, secret(alice), delay_s)
            assert_usable(alice)
            if code == 0:
                assert alice.record()["realName"] == f"Number {number}"

    def test_remove(self, box: Box, struck: Callable[..., int]) -> None:
        for number, delay_s in enumerate(DELAYS_S):
            dave = users.create(box, name=f"dave{number}")
            code = struck(["homectl", "remove", dave.name], {}, delay_s)
            if dave.state() != "":
                assert code != 0
                assert_usable(dave)
                users.remove(dave)
            assert_absent(box, dave.name)


def secret(user: User) -> dict[str, str]:
    """The environment that tells homectl the password."""
    return {"PASSWORD": user.password}


def opens(user: User, password: str) -> bool:
    """Whether this is the password; asked once, as homectl would ask for another."""
    text = f'{{"password":["{password}"]}}'
    argv = [*users.MANAGER, "AuthenticateHome", "ss", user.name, text]
    return user.box.run(argv, check=False).code == 0


@contextmanager
def session(user: User) -> Iterator[Terminal]:
    """An interactive ssh session."""
    with logins.ssh_on_terminal(user.box, user.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, user.password)
        terminal.expect(r"[$] $")
        yield terminal


def restart(box: Box) -> None:
    """An orderly restart, as after an update."""
    box.systemctl("restart", box.service)


def kill(box: Box) -> None:
    """The main process dies without a word."""
    inside = box.main_pid()
    os.kill(box.pid_outside(inside), signal.SIGKILL)
    wait_for_service(box, after=inside)


@pytest.mark.parametrize("blow", [restart, kill])
def test_a_session_survives_the_service(box: Box, alice: User, blow: Callable[[Box], None]) -> None:
    with session(alice) as terminal:
        blow(box)
        assert alice.state() == "active"
        terminal.send("echo before >note; stat -c 'owner=%u' note")
        terminal.expect(f"owner={alice.uid}")
        # A second one comes and goes; the first still holds the home.
        alice.ssh("echo after >>note")
        terminal.send("cat note; exit")
        assert "after" in terminal.finish().stdout
    # The reference of the session was not forgotten: its end is the end of the activation.
    alice.wait_until("inactive")
    assert not alice.is_mounted()


@pytest.mark.parametrize("blow", [restart, kill])
def test_a_session_that_ends_meanwhile_is_noticed(
    box: Box, alice: User, blow: Callable[[Box], None]
) -> None:
    with session(alice) as terminal:
        box.systemctl("stop", box.service)
        assert alice.is_mounted()
        terminal.send("exit")
        terminal.finish()
    box.systemctl("start", box.service)
    blow(box)
    alice.wait_until("inactive", 30)


def test_a_login_in_the_moment_of_a_crash_is_refused_or_good(box: Box, alice: User) -> None:
    inside = box.main_pid()
    slay(box.pid_outside(inside))
    seen = alice.ssh("pwd; stat -c %u .", check=False)
    if seen.code == 0:
        assert seen.stdout.split() == [alice.home, str(alice.uid)]
    else:
        assert seen.stdout == ""
    wait_for_service(box, after=inside)
    assert alice.ssh("pwd").stdout.strip() == alice.home
    alice.wait_until("inactive")


def test_a_call_starts_a_stopped_service(box: Box, alice: User) -> None:
    box.systemctl("stop", box.service)
    with alice.active():
        assert box.systemctl("is-active", box.service).stdout == "active\n"


def test_homes_activated_by_root_stay_through_a_restart(box: Box, alice: User) -> None:
    with alice.active():
        restart(box)
        assert alice.state() == "active"
        assert alice.is_mounted()
        kill(box)
        assert alice.state() == "active"
    assert not alice.is_mounted()


def test_a_dead_job_server_is_replaced(box: Box, alice: User) -> None:
    """Without it no home could be opened any more, although the service seems to run."""
    with alice.active():
        for pid in children(box.pid_outside(box.main_pid())):
            slay(pid)
        try:
            wait_for(lambda: opens(alice, alice.password), "jobs run again")
        except AssertionError:
            restart(box)  # spare the other tests
            raise
    assert_usable(alice)


def test_shutdown_deactivates_every_home(box: Box, alice: User) -> None:
    alice.homectl("activate")
    box.systemctl("stop", "homemgr-activate.service")
    assert not alice.is_mounted()
    box.systemctl("start", "homemgr-activate.service")
    assert alice.state() == "inactive"
