"""A real logind puts the machine to sleep: what is locked before, and what opens it after.

Only the last step is left out, in which the kernel would stop the machine that runs the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import logins
from .box import wait_for
from .conftest import World
from .users import at_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from .box import Box
    from .users import User

_ASLEEP = "/run/asleep"
# In the place of systemd-sleep(8): what it would find.
_SUSPEND = (
    "/etc/systemd/system/systemd-suspend.service.d/harmless.conf",
    f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'homectl list --no-legend >{_ASLEEP}'\n",
)
WORLDS = (World(base="sid", files=(_SUSPEND,)),)


@pytest.fixture(scope="module", autouse=True)
def able_to_sleep(box: Box) -> None:
    """A machine that says it can, and sessions whose screens are locked meanwhile."""
    box.write("/run/power-state", "mem\n")
    box.run(["mount", "--bind", "/run/power-state", "/sys/power/state"])
    for name in ("auth", "account", "session", "session-noninteractive"):
        path = f"/etc/pam.d/common-{name}"
        module = "pam_systemd_home.so"
        box.write(path, box.read(path).replace(module, f"{module} suspend=true"))


def sleep(box: Box) -> dict[str, str]:
    """Sleep and wake up; gives the states of homes while the machine slept."""
    box.path(_ASLEEP).unlink(missing_ok=True)
    box.systemctl("suspend")
    wait_for(lambda: inhibitors(box) == ["homemgrd"], "the next sleep has to wait again")
    rows = [line.split() for line in box.read(_ASLEEP).splitlines()]
    return {row[0]: row[3] for row in rows if len(row) > 3}


def inhibitors(box: Box) -> list[str]:
    """Whom sleep waits for; nobody while it is on its way."""
    if not box.path(_ASLEEP).exists():
        return []
    listed = box.run(["systemd-inhibit", "--list", "--no-legend", "--what=sleep"]).stdout
    return [line.split()[0] for line in listed.splitlines() if " delay" in line]


def unlock_screen(user: User, password: str) -> int:
    return logins.pamtester(user.box, user.name, password, "authenticate").code


def test_encrypted_homes_are_locked_before_sleep_and_need_the_password_after(
    box: Box, new_user: Callable[..., User]
) -> None:
    sealed, plain = new_user("--storage=fscrypt"), new_user()
    with at_work(sealed) as session, at_work(plain) as other:
        session.send("echo written >letter; echo d'on'e")
        session.expect("done")
        for _ in range(2):
            assert sleep(box) == {sealed.name: "locked", plain.name: "active"}
            # Awake again: nobody has shown yet who he is.
            assert sealed.state() == "locked"
            assert box.run(["cat", f"{sealed.home}/letter"], check=False).code != 0
            assert unlock_screen(sealed, "guessed at the screen") != 0
            assert sealed.state() == "locked"
            assert unlock_screen(sealed, sealed.password) == 0
            assert sealed.state() == "active"
            session.send("cat letter")
            session.expect("written")
        other.send("echo still h'er'e")
        other.expect("still here")
        said = box.journal(box.service)
    assert f"Home area {plain.name} stays readable: storage directory has no key" in said
    assert "takes longer than the machine waits" not in said
