"""Logins in a row, each as soon as the one before has ended.

A login then meets a home that is just being deactivated, and must wait for that or stop it:
systemd-homed 252 gives a home to 27 of 40 such sessions, the others start without one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from .conftest import World

if TYPE_CHECKING:
    from .box import Box
    from .users import User

WORLDS = (World(), World(base="sid"))
LOOK = 'grep -c " $HOME " /proc/self/mounts; stat -c %u .; echo x >>count'


@pytest.mark.parametrize(("method", "logins"), [("password", 20), ("keyboard-interactive", 8)])
def test_every_session_is_in_the_home(box: Box, alice: User, method: str, logins: int) -> None:
    sessions = [alice.ssh(LOOK, method=method, check=False) for _ in range(logins)]
    good = ["1", str(alice.uid)]
    bad = [session for session in sessions if session.stdout.split() != good or session.code]
    assert not bad, f"{len(bad)} of {logins} sessions had no home, the first: {bad[0]}"
    alice.wait_until("inactive")
    with alice.active():
        assert box.read(f"{alice.home}/count") == "x\n" * logins


def test_logins_at_once_share_one_home(box: Box, alice: User) -> None:
    with ThreadPoolExecutor(8) as people:
        sessions = list(people.map(lambda _: alice.ssh(LOOK, check=False), range(8)))
    assert [session.stdout.split() for session in sessions] == [["1", str(alice.uid)]] * 8
    alice.wait_until("inactive")
