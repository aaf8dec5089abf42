"""What a record says of sessions arrives in them, as with systemd-homed: PAM and logind read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import logins
from .conftest import World
from .users import MANAGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from .box import Box
    from .users import User

WORLDS = (World(), World(base="sid"))

OPTIONS = (
    *("--setenv=WONDER=land of tea", "--timezone=Asia/Tokyo", "--language=C.UTF-8"),
    *("--nice=5", "--umask=0027", "--rlimit=NOFILE=1000:2000", "--rlimit=CORE=0"),
    *("--tasks-max=500", "--memory-high=1073741824", "--memory-max=2147483648"),
    *("--cpu-weight=50", "--io-weight=60"),
)
#: One fact in a line, as the session itself sees it.
LOOK = (
    "echo env=$WONDER; echo tz=$TZ,$(date +%Z); echo lang=$LANG; echo umask=$(umask); "
    "echo nice=$(nice); echo files=$(ulimit -Sn),$(ulimit -Hn); echo core=$(ulimit -Hc); "
    "echo slice=$(systemctl show --value -p TasksMax,MemoryHigh,MemoryMax,CPUWeight,IOWeight "
    "user-$(id -u).slice | sort -n | tr '\\n' ' ')"
)
FACTS = {
    "env=land of tea",
    "tz=:Asia/Tokyo,JST",
    "lang=C.UTF-8",
    "nice=5",
    "files=1000,2000",
    "core=0",
    "slice=50 60 500 1073741824 2147483648",
}


def facts(output: str) -> set[str]:
    return {line.strip() for line in output.splitlines() if "=" in line and "$" not in line}


@pytest.mark.reference
def test_settings_arrive_whatever_way_somebody_comes(
    box: Box, new_user: Callable[..., User]
) -> None:
    alice = new_user(*OPTIONS)
    expected = FACTS | {"umask=0027"}
    assert facts(alice.ssh(LOOK).stdout) == expected
    alice.wait_until("inactive")
    assert facts(logins.login(box, alice.name, alice.password, LOOK).stdout) >= expected
    assert facts(logins.su(box, alice.name, alice.password, LOOK).stdout) == expected


@pytest.mark.reference
def test_changes_arrive_in_the_next_session(box: Box, alice: User) -> None:
    look = "echo env=$WONDER; echo tz=$TZ; echo nice=$(nice)"
    assert facts(alice.ssh(look).stdout) == {"env=", "tz=", "nice=0"}
    alice.wait_until("inactive")
    alice.homectl("update", "--setenv=WONDER=wall", "--timezone=Europe/Paris", "--nice=3")
    assert facts(alice.ssh(look).stdout) == {"env=wall", "tz=:Europe/Paris", "nice=3"}
    alice.wait_until("inactive")
    alice.homectl("update", "--setenv=", "--timezone=", "--nice=")
    assert facts(alice.ssh(look).stdout) == {"env=", "tz=", "nice=0"}


AREA = "echo home=$HOME; echo area=$XDG_AREA; echo at=$(pwd); echo run=$XDG_RUNTIME_DIR"


@pytest.mark.base("sid")
@pytest.mark.reference
def test_areas_are_chosen_by_name_and_by_default(box: Box, alice: User) -> None:
    """Since systemd 258."""
    alice.ssh("mkdir -p Areas/work Areas/play")
    at_home = {f"home={alice.home}", "area=", f"at={alice.home}", f"run=/run/user/{alice.uid}"}
    assert facts(alice.ssh(AREA).stdout) == at_home
    work = {f"home={alice.home}/Areas/work", "area=work", f"run=/run/user/{alice.uid}/Areas/work"}
    seen = logins.login(box, f"{alice.name}%work", alice.password, AREA).stdout
    assert facts(seen) >= work
    alice.wait_until("inactive")
    alice.homectl("update", "--default-area=play")
    play = {f"home={alice.home}/Areas/play", "area=play"}
    assert facts(logins.login(box, alice.name, alice.password, AREA).stdout) >= play
    alice.wait_until("inactive")
    # One that is not there is none.
    alice.homectl("update", "--default-area=nowhere")
    nowhere = {f"home={alice.home}", "area="}
    assert facts(logins.login(box, alice.name, alice.password, AREA).stdout) >= nowhere
    alice.wait_until("inactive")


@pytest.mark.base("sid")
@pytest.mark.reference
def test_aliases_and_realms_mean_the_same_account(box: Box, new_user: Callable[..., User]) -> None:
    """Since systemd 258."""
    alice = new_user("--alias=liddell", "--realm=example.com")
    names = ("liddell", f"{alice.name}@example.com", "liddell@example.com")
    for name in names:
        assert box.run(["id", "-u", name]).stdout.strip() == str(alice.uid)
        assert box.run(["getent", "passwd", name]).stdout.startswith(f"{alice.name}:")
        assert alice.name in box.run([*MANAGER, "GetHomeByName", "s", name]).stdout
    # The PAM module takes no name with a realm for a user's.
    seen = logins.login(box, "liddell", alice.password, "echo home=$HOME; echo me=$(id -un)").stdout
    assert facts(seen) >= {f"home={alice.home}", f"me={alice.name}"}
    alice.wait_until("inactive")
