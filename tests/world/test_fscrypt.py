"""Encrypted homes, of systemd-homed with homemgr and the other way round, and in real sessions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import fscrypt
from homemgr.kernel.fscrypt import KeyStatus
from homemgr.storage import accelerators, key_slots

from . import logins
from .box import Box, wait_for
from .conftest import World
from .hands import give_back, take_over
from .users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .users import User

# 252 makes policies of version 1 and slots of the old format, 262 the newer ones.
WORLDS = (World("both"), World("both", base="sid"))
ENCRYPTED = "--storage=fscrypt"
SECRET = "written-by-homed"


@pytest.fixture
def homed(box: Box, nothing_left: None) -> Iterator[Box]:
    """A box where systemd-homed serves, before and after."""
    yield box
    give_back(box)


def policy(user: User) -> fscrypt.KeyName:
    with Fd.open(str(user.box.path(user.image)), DIRECTORY_FLAGS) as top:
        found = fscrypt.get_policy(top.fileno())
    assert found is not None
    return found


def key_status(user: User) -> KeyStatus:
    key = policy(user)
    with Fd.open(str(user.box.path(user.image)), DIRECTORY_FLAGS) as top:
        return fscrypt.key_status(top.fileno(), key)


def assert_closed(user: User) -> None:
    """Inactive, and the file system has its key no more."""
    user.wait_until("inactive")
    assert key_status(user) is KeyStatus.ABSENT
    assert "letter" not in os.listdir(user.box.path(user.image))


def freezer_state(user: User) -> str:
    """Whether the programs of the user may run."""
    unit = f"user-{user.uid}.slice"
    return user.box.systemctl("show", "-P", "FreezerState", unit).stdout.strip()


def slots(user: User) -> list[bytes]:
    """The formats of the key slots."""
    path = user.box.path(user.image)
    names = [name for name in os.listxattr(path) if name.startswith("trusted.fscrypt_slot")]
    return [os.getxattr(path, name)[:4] for name in names]


def accelerated(user: User) -> bool:
    """Whether each key slot that may has an accelerator of its own, and no other has one."""
    with Fd.open(str(user.box.path(user.image)), DIRECTORY_FLAGS) as top:
        found = key_slots.read(top.fileno())
        expected = [not slot.is_old and accelerators.is_useful() for slot in found]
        return expected == [bool(accelerators.read(top.fileno(), slot)) for slot in found]


def change_password(user: User, new: str) -> str:
    """Change it; gives the old one."""
    user.homectl("passwd", new_password=new)
    old, user.password = user.password, new
    return old


def su_of_homed(user: User, command: str) -> list[str]:
    """The words that a session by su prints, under systemd-homed.

    Of 252 not every session finds the home: the end of one attempt of PAM to have it can close
    what the next one has just opened. A session that is elsewhere is tried again.
    """
    for _ in range(5):
        seen = logins.su(user.box, user.name, user.password, f'cd "$HOME" && {command} && pwd')
        words = seen.stdout.split()
        user.wait_until("inactive")
        if words[-1:] == [f"/home/{user.name}"]:
            break
    return words


def test_homes_of_systemd_homed_open_where_they_are(
    homed: Box, new_user: Callable[..., User]
) -> None:
    bob = new_user(ENCRYPTED)
    su_of_homed(bob, f"echo {SECRET} >letter")
    image, uid = bob.image, bob.uid
    made = policy(bob).version, bool(slots(bob)[0].startswith(b"$v2:"))
    take_over(homed)
    assert (bob.state(), bob.image, bob.uid) == ("inactive", image, uid)
    assert_closed(bob)
    seen = bob.ssh("cat letter; stat -c %u letter .; echo reply >reply")
    assert seen.stdout.split() == [SECRET, str(uid), str(uid)]
    assert_closed(bob)
    assert accelerated(bob)
    old = change_password(bob, "new under homemgr")
    # It stays what it was, as a systemd-homed of its age may have to open it.
    assert (policy(bob).version, bool(slots(bob)[0].startswith(b"$v2:"))) == made
    assert len(slots(bob)) == 1
    assert accelerated(bob)
    give_back(homed)
    bob.homectl_refuses("authenticate", old)
    seen = su_of_homed(bob, "cat reply; stat -c %u reply")
    assert seen[-3:-1] == ["reply", str(uid)]


# 252 knows no policies of version 2.
@pytest.mark.base("sid")
def test_homes_of_homemgr_open_with_systemd_homed(
    homed: Box, new_user: Callable[..., User]
) -> None:
    take_over(homed)
    carol = new_user(ENCRYPTED)
    carol.ssh("echo mine >letter")
    assert_closed(carol)
    assert set(carol.owners_on_disk()) == {NOBODY}
    image, uid = carol.image, carol.uid
    give_back(homed)
    assert (carol.state(), carol.image, carol.uid) == ("inactive", image, uid)
    with carol.active():
        assert homed.read(f"{carol.home}/letter") == "mine\n"
        assert homed.path(f"{carol.home}/letter").stat().st_uid == uid
        homed.run(["sh", "-c", f"echo more >{carol.home}/more"], user=carol.name)
    assert accelerated(carol)
    old = change_password(carol, "new under homed")
    take_over(homed)
    # What was made for the slot of the old one is of no use any more, to nobody.
    carol.homectl_refuses("authenticate", old)
    assert carol.ssh("cat more").stdout == "more\n"
    assert_closed(carol)
    assert accelerated(carol)


@pytest.mark.base("sid")
def test_a_session_and_its_end(homed: Box, new_user: Callable[..., User]) -> None:
    take_over(homed)
    dave = new_user(ENCRYPTED)
    dave.ssh("echo written >letter")
    assert_closed(dave)
    with logins.ssh_on_terminal(homed, dave.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, dave.password)
        terminal.expect(r"[$] $")
        assert key_status(dave) is KeyStatus.PRESENT
        homed.run(["homectl", "lock", dave.name])
        assert (dave.state(), freezer_state(dave)) == ("locked", "frozen")
        assert key_status(dave) is KeyStatus.INCOMPLETELY_REMOVED
        # Who logs in unlocks it, and the session goes on.
        assert dave.ssh("cat letter").stdout == "written\n"
        assert (dave.state(), freezer_state(dave)) == ("active", "running")
        terminal.send("cat letter; exit")
        terminal.expect("written")
        terminal.finish()
    assert_closed(dave)
    assert dave.ssh("cat letter").stdout == "written\n"
    assert_closed(dave)
    # The service is killed while somebody is inside, and the mount goes with the session.
    dave.homectl("activate")
    homed.systemctl("kill", "--signal=KILL", "homemgrd.service")
    homed.run(["umount", dave.home])
    homed.systemctl("restart", "homemgrd.service")
    wait_for(lambda: key_status(dave) is KeyStatus.ABSENT, "the key is gone", 20)
