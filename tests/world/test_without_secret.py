"""Homes that need no secret, with real clients: a key or root opens them, nothing less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import logins
from .box import wait_for
from .conftest import World
from .terminal import Terminal
from .test_login import LOOK, REFUSAL, assert_gone, assert_real_session

if TYPE_CHECKING:
    from .box import Box
    from .users import User

WORLDS = (World(), World(base="sid"))
INHIBITORS = ("systemd-inhibit", "--list", "--no-legend", "--no-pager")


@pytest.fixture
def key(box: Box, alice: User) -> str:
    """A key that opens alice's account, whose home needs no secret here."""
    private = f"/root/key-{alice.name}"
    box.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private])
    options = (f"--ssh-authorized-keys=@{private}.pub", "--activate-without-secret=yes")
    box.run(["homemgr", "update", alice.name, *options], env={"PASSWORD": alice.password})
    # The real homectl keeps what it does not know.
    alice.homectl("update", "--real-name=Alice Example")
    return private


@pytest.mark.usefixtures("key")
def test_who_has_only_a_name_is_asked_for_the_password(box: Box, alice: User) -> None:
    """Where a password is what proves who somebody is."""
    refused = logins.ssh(box, alice.name, "", LOOK, check=False)
    assert refused.code != 0
    assert alice.home not in refused.stdout
    with logins.ssh_on_terminal(box, alice.name, method="keyboard-interactive") as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, "wrong")
        terminal.expect(REFUSAL)
    with Terminal(box, [*logins.NOBODY, "su", "-", alice.name, "-c", LOOK]) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, "wrong")
        terminal.expect(REFUSAL)
    assert box.run(["homectl", "activate", alice.name], user="nobody", check=False).code != 0
    assert alice.state() == "inactive"
    assert_real_session(alice, logins.su(box, alice.name, alice.password, LOOK).stdout)
    assert_gone(alice)


def test_key_alone_opens_it(box: Box, alice: User, key: str) -> None:
    assert alice.state() == "inactive"
    seen = logins.ssh_with_key(box, alice.name, key, LOOK)
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)
    options = ["-i", key, "-o", "IdentitiesOnly=yes"]
    with logins.ssh_on_terminal(box, alice.name, *options, method="publickey") as terminal:
        terminal.answer(r"[$] $", f"{LOOK}; exit")
        seen = terminal.finish()
    assert "assword" not in seen.stdout
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)


@pytest.mark.usefixtures("key")
def test_autologin_opens_it(box: Box, alice: User) -> None:
    """As agetty --autologin calls it."""
    with Terminal(box, ["login", "-f", alice.name]) as terminal:
        terminal.answer(r"[$] $", f"{LOOK}; exit")
        seen = terminal.finish()
    assert "assword" not in seen.stdout
    assert_real_session(alice, seen.stdout)
    assert_gone(alice)
    assert_real_session(alice, box.run(["su", "-", alice.name, "-c", LOOK]).stdout)
    assert_gone(alice)


@pytest.mark.usefixtures("key")
def test_services_of_a_user_who_lingers_have_it_without_a_session(box: Box, alice: User) -> None:
    box.run(["loginctl", "enable-linger", alice.name])
    try:
        alice.wait_until("active")
        assert alice.is_mounted()
    finally:
        box.run(["loginctl", "disable-linger", alice.name])
        box.systemctl("stop", f"user@{alice.uid}.service")
    alice.wait_until("inactive")


def test_root_activates_it_until_the_policy_is_taken_back(box: Box, alice: User, key: str) -> None:
    box.run(["homectl", "activate", alice.name])
    assert alice.is_mounted()
    box.run(["homemgr", "deactivate", alice.name])
    box.run(["homemgr", "activate", alice.name])
    box.run(["homemgr", "deactivate", alice.name])
    assert "No Secret On" in box.run(["homemgr", "inspect", alice.name]).stdout
    words = ["homemgr", "update", alice.name, "--activate-without-secret=no"]
    box.run(words, env={"PASSWORD": alice.password})
    refused = logins.ssh_with_key(box, alice.name, key, f"{LOOK}; echo got in", check=False)
    assert refused.code != 0
    assert "got in" not in refused.stdout
    assert alice.state() == "inactive"


def test_logind_waits_for_the_service_before_sleep(box: Box) -> None:
    listed = box.run(INHIBITORS).stdout
    assert [(" sleep " in line, line.split()[-1]) for line in _ours(listed)] == [(True, "delay")]
    # It is there as well for another logind, and with another service.
    for unit in ("systemd-logind.service", box.service):
        box.systemctl("restart", unit)
        wait_for(lambda: len(_ours(box.run(INHIBITORS).stdout)) == 1, f"a lock after {unit}")


def _ours(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if line.startswith("homemgrd")]


def test_log_level_is_root_s_to_change(box: Box) -> None:
    assert box.systemctl("service-log-level", box.service).stdout == "info\n"
    box.systemctl("service-log-level", box.service, "debug")
    assert box.systemctl("service-log-level", box.service).stdout == "debug\n"
    assert box.systemctl("service-log-target", box.service).stdout == "journal\n"
    where = ("org.freedesktop.home1", "/org/freedesktop/LogControl1")
    change = ("org.freedesktop.LogControl1", "LogLevel", "s", "emerg")
    put = ["busctl", "set-property", *where, *change]
    assert box.run(put, user="nobody", check=False).code != 0
    assert box.systemctl("service-log-level", box.service).stdout == "debug\n"
    box.systemctl("service-log-level", box.service, "info")
