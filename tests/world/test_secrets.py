"""Recovery keys, passwords that have to be changed, accounts that are closed, and wrong words."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from . import logins, users
from .conftest import World
from .terminal import Terminal
from .users import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .box import Box, Result

# The sshd of sid soon hears nobody from where passwords come that are wrong.
SSHD = (("/etc/ssh/sshd_config.d/10-secrets.conf", "PerSourcePenalties no\n"),)
WORLDS = (World(), World(base="sid", files=SSHD))

KEY = re.compile(r"(?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}")
DAY_S = 86_400


@pytest.fixture
def guarded(box: Box, nothing_left: None) -> Iterator[tuple[User, str]]:
    """A user of homectl's making, and the recovery key that it shows once."""
    user = User(box, "guarded", "open sesame")
    argv = ["homectl", "create", user.name, *users.CREATE, "--recovery-key=yes"]
    made = box.run(argv, env={"NEWPASSWORD": user.password})
    yield user, shown(made)
    users.remove(user)


def shown(made: Result) -> str:
    """The recovery key that a command showed."""
    found = KEY.search(made.stdout + made.stderr)
    assert found, made.output
    return found[0]


def refuses(user: User, word: str) -> bool:
    """Whether nobody gets in with ``word``."""
    return logins.ssh(user.box, user.name, word, check=False).code != 0


def test_a_recovery_key_is_as_good_as_the_password(box: Box, guarded: tuple[User, str]) -> None:
    alice, first = guarded
    record = alice.record()
    assert record["recoveryKeyType"] == ["modhex64"]
    assert first not in str(record)
    # Typed as people type what they read from paper.
    seen = logins.su(box, alice.name, first.upper(), "pwd")
    assert seen.stdout.split()[-1] == alice.home
    alice.wait_until("inactive")
    seen = logins.ssh(box, alice.name, first.replace("-", ""), "pwd")
    assert seen.stdout.strip() == alice.home
    alice.wait_until("inactive")
    # The key stays in the safe while the password is changed, and opens the home after it.
    alice.homectl("passwd", new_password="another open sesame")
    # Who has forgotten the password gives himself another.
    alice.password = first
    alice.homectl("passwd", new_password="a third open sesame")
    key = {"PASSWORD": first}
    argv = ["homemgr", "slot", "replace", alice.name, "recovery-key"]
    second = shown(box.run(argv, env=key))
    alice.password = second
    alice.homectl("authenticate")
    assert refuses(alice, first)
    if box.base == "sid":
        # 252 knows the option, and makes a key for new users only.
        alice.password = shown(alice.homectl("update", "--recovery-key=yes"))
        alice.homectl("authenticate")
        alice.homectl_refuses("authenticate", second)
    alice.password = "a third open sesame"
    alice.homectl("authenticate")


def test_names_of_slots_survive_homectl(box: Box, alice: User) -> None:
    words = {"PASSWORD": alice.password, "NEWPASSWORD": "only for work"}
    box.run(["homemgr", "slot", "add", alice.name, "work"], env=words)
    alice.homectl("update", "--real-name=Still Alice")
    alice.homectl("passwd", new_password="another open sesame")
    listed = box.run(["homemgr", "slot", "list", alice.name, "--json=short"]).stdout
    kind = "password"
    assert json.loads(listed) == [{"name": name, "kind": kind} for name in ("password", "work")]
    for alice.password in ("another open sesame", "only for work"):
        alice.homectl("authenticate")


def change_when_asked(terminal: Terminal, old: str, new: str) -> Result:
    """Log in where a change is due, and do as one is told."""
    terminal.answer(logins.PASSWORD_PROMPT, old)
    terminal.answer(r"(?i)new password[^\n]*: ?$", new)
    terminal.answer(r"(?i)(repeat|retype|again)[^\n]*: ?$", new)
    # The module forgets it as soon as the new one is known, here and with systemd-homed.
    terminal.answer(logins.PASSWORD_PROMPT, old)
    return terminal.finish()


@pytest.mark.parametrize("way", ["su", "ssh"])
def test_a_login_with_a_password_that_is_due_changes_it(box: Box, alice: User, way: str) -> None:
    alice.homectl("update", "--password-change-now=yes")
    old, new = alice.password, "much better 44"
    if way == "su":
        argv = [*logins.NOBODY, "su", "-", alice.name, "-c", "pwd"]
        terminal = Terminal(box, argv)
    else:
        method = "keyboard-interactive"
        terminal = logins.ssh_on_terminal(box, alice.name, method=method, command="pwd")
    with terminal:
        seen = change_when_asked(terminal, old, new)
    assert seen.code == 0, seen.output
    assert alice.home in seen.stdout
    alice.wait_until("inactive")
    alice.password = new
    assert "passwordChangeNow" not in alice.record()
    assert logins.ssh(box, alice.name, new, "pwd").stdout.strip() == alice.home
    assert refuses(alice, old)


def test_closed_accounts_let_nobody_in(box: Box, alice: User) -> None:
    now = int(time.time())
    for closing, opening in (
        ("--locked=yes", "--locked=no"),
        (f"--not-before=@{now + DAY_S}", "--not-before="),
        (f"--not-after=@{now - DAY_S}", "--not-after="),
    ):
        alice.homectl("update", closing)
        assert refuses(alice, alice.password), closing
        alice.wait_until("inactive")
        alice.homectl("update", opening)
    assert not refuses(alice, alice.password)


def asked_by_ssh(box: Box, user: str, method: str) -> str:
    """What somebody sees who tries to guess the password of ``user``."""
    with logins.ssh_on_terminal(box, user, "-o", "LogLevel=ERROR", method=method) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, "wrong")
        return terminal.finish().output


def asked_by_su(box: Box, user: str) -> str:
    """The same on the machine itself."""
    with Terminal(box, [*logins.NOBODY, "su", "-", user, "-c", "true"]) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, "wrong")
        return terminal.finish().output


def test_a_wrong_password_looks_like_an_unknown_user(box: Box, alice: User) -> None:
    # As long as the name, so that it is in the same places.
    nobody = "x" * len(alice.name)
    for method in ("password", "keyboard-interactive"):
        seen = {user: asked_by_ssh(box, user, method) for user in (alice.name, nobody)}
        assert seen[alice.name].replace(alice.name, nobody) == seen[nobody], method
    # One attempt is one attempt: what is typed next is not taken for another.
    assert asked_by_su(box, alice.name).count("assword") == 1
    attempts = alice.record()["status"][box.machine_id]["badAuthenticationCounter"]
    assert attempts == 3
