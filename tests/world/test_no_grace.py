"""Logins where a home goes the moment its last reference does (GraceSec=0).

Every login of a row then meets the deactivation of the one before. With keyboard-interactive the
reference that sshd's authentication process took is gone before the session asks for one: there
is no home to be had then, and the answer must be a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import logins
from .conftest import World

if TYPE_CHECKING:
    from .box import Box
    from .users import User

FILES = (("/etc/homemgr/homemgr.conf", "[Home]\nGraceSec=0\n"),)
WORLDS = (World(files=FILES), World(base="sid", files=FILES))
#: systemd-homed 252 fails about every third.
LOGINS = 20
LOOK = 'grep -c " $HOME " /proc/self/mounts; stat -c %u .'


def test_every_password_session_is_in_the_home(box: Box, alice: User) -> None:
    sessions = [alice.ssh(LOOK, check=False) for _ in range(LOGINS)]
    good = ["1", str(alice.uid)]
    bad = [session for session in sessions if session.stdout.split() != good or session.code]
    assert not bad, f"{len(bad)} of {LOGINS} sessions had no home, the first: {bad[0]}"
    alice.wait_until("inactive")


def test_a_session_that_finds_no_home_is_refused(box: Box, alice: User) -> None:
    for _ in range(5):
        seen = alice.ssh("echo got=in; pwd", method="keyboard-interactive", check=False)
        if "got=in" in seen.stdout:
            assert alice.home in seen.stdout
        else:
            assert seen.code != 0
    alice.wait_until("inactive")


def test_the_home_goes_at_once(box: Box, alice: User) -> None:
    logins.ssh(box, alice.name, alice.password)
    alice.wait_until("inactive", 2)
