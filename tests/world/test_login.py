"""People log in with su, ssh, login and plain PAM; the home comes and goes with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from . import logins
from .conftest import World
from .terminal import Terminal
from .users import NOBODY

if TYPE_CHECKING:
    from .box import Box
    from .users import User

WORLDS = (World(), World(base="sid"))

# What a session in a real home prints: where it is, whose that is, and that it is a mount.
LOOK = "pwd; stat -c 'owner=%u:%g' .; grep -c \" $HOME \" /proc/self/mounts; echo in >proof"

REFUSAL = r"incorrect|try again|failure|closed|denied|refused"


def assert_real_session(alice: User, output: str) -> None:
    """The output of LOOK, from a session in the mounted home."""
    assert alice.home in output
    assert f"owner={alice.uid}:{alice.uid}" in output
    assert "\n1\n" in output


def assert_gone(alice: User) -> None:
    """After logout: inactive, unmounted, and all that was written belongs to nobody on disk."""
    alice.wait_until("inactive")
    assert not alice.is_mounted()
    owners = alice.owners_on_disk()
    assert set(owners) == {NOBODY}
    assert any(path.endswith("/proof") for path in owners[NOBODY])


def test_su_with_a_typed_password(box: Box, alice: User) -> None:
    seen = logins.su(box, alice.name, alice.password, LOOK)
    assert seen.code == 0
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_ssh_with_a_password(box: Box, alice: User, method: str) -> None:
    seen = alice.ssh(LOOK, method=method)
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_ssh_on_a_terminal(box: Box, alice: User, method: str) -> None:
    with logins.ssh_on_terminal(box, alice.name, method=method) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, alice.password)
        terminal.answer(r"[$] $", f"{LOOK}; tty; exit")
        seen = terminal.finish()
    assert seen.code == 0
    assert_real_session(alice, seen.stdout)
    assert "/dev/pts/" in seen.stdout
    assert_gone(alice)


@pytest.mark.reference
def test_ssh_password_session_is_in_the_home(box: Box, alice: User) -> None:
    seen = alice.ssh(LOOK)
    assert_real_session(alice, seen.stdout)
    alice.wait_until("inactive")


@pytest.mark.reference
def test_login_on_a_console(box: Box, alice: User) -> None:
    seen = logins.login(box, alice.name, alice.password, LOOK)
    assert_real_session(alice, seen.stdout)
    alice.wait_until("inactive")


def test_pam_alone(box: Box, alice: User) -> None:
    seen = logins.pamtester(
        box, alice.name, alice.password, *("authenticate", "acct_mgmt", "open_session")
    )
    assert seen.code == 0, seen.output
    alice.wait_until("inactive")


@pytest.mark.reference
def test_a_session_is_complete(box: Box, alice: User) -> None:
    seen = alice.ssh(
        "cat /proc/self/cgroup; echo $XDG_RUNTIME_DIR; systemctl --user is-system-running --wait"
    ).stdout
    assert f"user-{alice.uid}.slice/session-" in seen
    assert f"/run/user/{alice.uid}" in seen
    assert "running" in seen
    alice.wait_until("inactive")


def test_two_sessions_share_the_home_until_the_last_goes(box: Box, alice: User) -> None:
    with logins.ssh_on_terminal(box, alice.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, alice.password)
        terminal.expect(r"[$] $")
        alice.ssh("echo second >second")
        assert alice.state() in {"active", "lingering"}
        terminal.send("cat second; exit")
        assert "second" in terminal.finish().stdout
    alice.wait_until("inactive")


def test_a_login_that_is_killed_lets_go_of_the_home(box: Box, alice: User) -> None:
    with logins.ssh_on_terminal(box, alice.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, alice.password)
        terminal.expect(r"[$] $")
        assert alice.state() == "active"
        box.run(["pkill", "-KILL", "-f", f"^sshd.*: {alice.name}"])
    alice.wait_until("inactive")


def test_the_wrong_password_is_refused_everywhere(box: Box, alice: User) -> None:
    def over_ssh() -> None:
        refused = logins.ssh(box, alice.name, "wrong", LOOK, check=False)
        assert refused.code != 0
        assert alice.home not in refused.stdout

    def on(terminal: Terminal) -> None:
        with terminal:
            terminal.answer(logins.PASSWORD_PROMPT, "wrong")
            terminal.expect(REFUSAL)

    # At once: each of them takes several seconds, as a punishment.
    with ThreadPoolExecutor() as people:
        refused = [
            people.submit(over_ssh),
            people.submit(on, Terminal(box, ["login", alice.name])),
            people.submit(on, Terminal(box, [*logins.NOBODY, "su", "-", alice.name, "-c", LOOK])),
            people.submit(
                on, logins.ssh_on_terminal(box, alice.name, method="keyboard-interactive")
            ),
        ]
    for each in refused:
        each.result()
    assert alice.state() == "inactive"
    assert not alice.is_mounted()


def test_nobody_else_gets_in_with_an_empty_password(box: Box, alice: User) -> None:
    refused = logins.ssh(box, alice.name, "", LOOK, check=False)
    assert refused.code != 0
    assert alice.state() == "inactive"


def test_passwd_through_pam(box: Box, alice: User) -> None:
    old, new = alice.password, "much better 42"
    with logins.ssh_on_terminal(box, alice.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, old)
        terminal.answer(r"[$] $", "passwd")
        terminal.answer(r"(?i)new password[^\n]*: ?$", new)
        terminal.answer(r"(?i)(repeat|retype|again)[^\n]*: ?$", new)
        terminal.answer(logins.PASSWORD_PROMPT, old)
        terminal.expect("updated successfully")
        terminal.answer(r"[$] $", "exit")
        terminal.finish()
    alice.wait_until("inactive")
    alice.password = new
    alice.homectl_refuses("authenticate", old)
    assert_real_session(alice, alice.ssh(LOOK).stdout)
    assert_gone(alice)


def test_passwd_of_an_inactive_home(box: Box, alice: User) -> None:
    old, new = alice.password, "much better 43"
    assert logins.passwd(box, alice.name, old, new).code == 0
    alice.password = new
    assert_real_session(alice, alice.ssh(LOOK).stdout)
    assert_gone(alice)


@pytest.fixture
def key(box: Box, alice: User) -> str:
    """The path of a private key that opens alice's account."""
    private = f"/root/key-{alice.name}"
    box.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private])
    alice.homectl("update", f"--ssh-authorized-keys=@{private}.pub")
    return private


@pytest.mark.reference
def test_ssh_with_a_key_to_an_active_home(box: Box, alice: User, key: str) -> None:
    alice.homectl("activate")
    seen = logins.ssh_with_key(box, alice.name, key, LOOK)
    assert_real_session(alice, seen.stdout)
    # The end of the last session is the end of the activation, whoever asked for that.
    alice.wait_until("inactive")


def test_a_key_alone_gives_no_session_without_a_home(box: Box, alice: User, key: str) -> None:
    refused = logins.ssh_with_key(box, alice.name, key, f"{LOOK}; echo got in", check=False)
    assert refused.code != 0, refused.output
    assert "got in" not in refused.stdout
    assert refused.stderr
    assert not alice.is_mounted()


def test_a_key_on_a_terminal_asks_or_refuses(box: Box, alice: User, key: str) -> None:
    options = ["-i", key, "-o", "IdentitiesOnly=yes"]
    with logins.ssh_on_terminal(box, alice.name, *options, method="publickey") as terminal:
        shown = terminal.expect(f"{logins.PASSWORD_PROMPT}|{REFUSAL}")
        if "assword" not in shown.rpartition("\n")[2]:
            return  # no shell
        terminal.send(alice.password)
        terminal.answer(r"[$] $", f"{LOOK}; exit")
        seen = terminal.finish()
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)


def test_a_key_beside_a_held_home_survives_the_first_session(
    box: Box, alice: User, key: str
) -> None:
    """A key session that came while the home was active holds it for itself."""
    with logins.ssh_on_terminal(box, alice.name) as first:
        first.answer(logins.PASSWORD_PROMPT, alice.password)
        first.expect(r"[$] $")
        options = ["-i", key, "-o", "IdentitiesOnly=yes"]
        with logins.ssh_on_terminal(box, alice.name, *options, method="publickey") as second:
            second.expect(r"[$] $")
            first.send("exit")
            first.finish()
            second.send(f"{LOOK}; exit")
            seen = second.finish()
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)
