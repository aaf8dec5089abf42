"""The default of logind: a user manager, and with it the home, stays ten seconds after logout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .conftest import World

if TYPE_CHECKING:
    from .box import Box
    from .users import User

WORLDS = (World(files=(("/etc/systemd/logind.conf.d/world.conf", "[Login]\n"),)),)


def test_the_home_goes_with_the_user_manager(box: Box, alice: User) -> None:
    alice.ssh()
    ended = time.monotonic()
    time.sleep(2)
    assert alice.is_mounted()
    alice.ssh("pwd")  # back within the time: the same home
    alice.wait_until("inactive", 40)
    assert time.monotonic() - ended > 11
    assert not alice.is_mounted()
