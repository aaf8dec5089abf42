"""A home moves between machines whose clocks differ by years, and can be changed on both.

The real clock cannot be another one in a box. What the service reads is shifted instead, in
every process of it; all that is asked by homectl of the box goes by the real clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .box import Box
from .machines import at
from .migration import is_usable, migrate, traveller
from .users import User

YEAR_S = 365 * 24 * 3600
#: Python runs such a line at every start.
SHIFT = (
    "import time; "
    "time.time = lambda real=time.time: real() + {0}; "
    "time.time_ns = lambda real=time.time_ns: real() + {0} * 10**9\n"
)


@pytest.fixture
def alice(here: Box, there: Box) -> Iterator[User]:
    with traveller(here, there) as alice:
        yield alice


@contextmanager
def clock_off_by(box: Box, seconds: int) -> Iterator[None]:
    """What homemgr takes for the time on this machine, until the end of the block."""
    (packages,) = box.path("/opt/homemgr/lib").glob("python3*/site-packages")
    shift = packages / "clock.pth"
    shift.write_text(SHIFT.format(seconds))
    try:
        box.systemctl("restart", "homemgrd.service")
        yield
    finally:
        shift.unlink()
        box.systemctl("restart", "homemgrd.service")


def change_everything(user: User) -> None:
    """Password by the service, record by homectl; both are in effect."""
    old, user.password = user.password, f"{user.password} of {user.box.name}"
    before = User(user.box, user.name, old)
    before.homectl("passwd", new_password=user.password)
    user.homectl("update", f"--real-name=On {user.box.name}")
    user.homectl("authenticate")
    assert user.record()["realName"] == f"On {user.box.name}"


def stamps(user: User) -> list[int]:
    record = user.record()
    return [record["lastChangeUSec"], record["lastPasswordChangeUSec"]]


def test_a_home_from_a_clock_ahead_can_be_changed_and_goes_back(
    here: Box, there: Box, alice: User
) -> None:
    with clock_off_by(here, 10 * YEAR_S):
        alice.homectl("passwd", new_password="in the future")
        alice.password = "in the future"
        assert min(stamps(alice)) > (time.time() + 9 * YEAR_S) * 1e6
        migrate(here, alice, there.name)
        new = at(there, alice)
        assert max(stamps(new)) < time.time() * 1e6
        change_everything(new)
        migrate(there, new, here.name)
        back = at(here, new)
        # The files that were kept here hold a record with a later stamp.
        assert back.record()["realName"] == f"On {there.name}"
        back.homectl("passwd", new_password="at home")
        back.password = "at home"
        assert is_usable(here, back)


def test_a_home_from_a_clock_behind_can_be_changed_and_goes_back(
    here: Box, there: Box, alice: User
) -> None:
    with clock_off_by(there, 10 * YEAR_S):
        migrate(here, alice, there.name)
        new = at(there, alice)
        new.homectl("passwd", new_password="in the future")
        new.password = "in the future"
        new.homectl_refuses("authenticate", alice.password)
        migrate(there, new, here.name)
    back = at(here, new)
    change_everything(back)
    assert is_usable(here, back)


def test_what_was_begun_under_another_clock_goes_on(here: Box, there: Box, alice: User) -> None:
    with clock_off_by(here, YEAR_S):
        migrate(here, alice, there.name, "--keep")
    with clock_off_by(there, -YEAR_S):
        migrate(here, alice, there.name, "--keep")
        migrate(here, alice, there.name)
        migrate(here, alice, there.name, "--undo")
    assert is_usable(here, alice)
    migrate(here, alice, there.name)
    assert is_usable(there, alice)
