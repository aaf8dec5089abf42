"""People log in to homes of those storages for which most machines of tests lack the kernel."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.kernel import device_mapper
from tests import verifying
from tests.smb import Server

from .. import logins, machines, users
from ..box import Box, wait_for
from ..conftest import World
from ..test_crash import kill
from ..test_login import LOOK, assert_real_session
from ..users import User

#: No udevd runs in a box, which alone makes nodes for systemd-homed.
NODES = {
    "/etc/systemd/system/systemd-homed.service.d/nodes.conf": (
        "[Service]\nCapabilityBoundingSet=CAP_MKNOD\nDeviceAllow=block-device-mapper rwm\n"
    )
}
#: Nobody comes back who would be spared a second activation.
WORLDS = (World(files=(("/etc/homemgr/homemgr.conf", "[Home]\nGraceSec=0\n"),)),)
#: As small as systemd-homed makes them, and nobody is to wait for what is measured.
LUKS = (
    *("--storage=luks", "--fs-type=ext4", "--disk-size=52M", "--luks-discard=yes"),
    *("--luks-pbkdf-type=pbkdf2", "--luks-pbkdf-time-cost=1ms"),
)


@pytest.fixture(autouse=True)
def no_device_left(box: Box) -> Iterator[None]:
    """What encrypted homes are opened with belongs to the kernel, which all boxes share."""
    before = verifying.loops()
    yield
    wait_for(lambda: verifying.loops() == before, "all loop devices are free")
    assert verifying.devices() == []


@pytest.fixture(scope="module")
def other_box(box: Box) -> Iterator[Box]:
    """Another machine, where the newest systemd-homed serves."""
    with Box("homed", base="sid", files=NODES) as booted:
        yield booted


@pytest.fixture
def server(box: Box) -> Iterator[Server]:
    """A file server beside the box, in its network."""
    state = Path(tempfile.mkdtemp(dir="/run"))
    state.chmod(0o755)
    running = Server(state, f"/proc/{box.pid1}/ns/net")
    yield running
    running.close()
    shutil.rmtree(state)


def test_an_encrypted_home_comes_and_goes_with_ssh_and_su(
    box: Box, new_user: Callable[..., User]
) -> None:
    alice = new_user(*LUKS)
    assert_real_session(alice, alice.ssh(LOOK).stdout)
    assert_closed(alice)
    seen = logins.su(box, alice.name, alice.password, f"cat proof; {LOOK}")
    assert seen.code == 0
    assert "in\n" in seen.stdout
    assert_real_session(alice, seen.stdout)
    assert_closed(alice)
    refused = logins.ssh(box, alice.name, "wrong", LOOK, check=False)
    assert "Permission denied" in refused.stderr
    assert_closed(alice)


def test_a_locked_home_waits_for_a_login(box: Box, new_user: Callable[..., User]) -> None:
    alice = new_user(*LUKS)
    with users.at_work(alice) as session:
        alice.homectl("lock")
        assert is_suspended(alice)
        session.send("echo late >letter; sync letter; echo d'on'e")
        with pytest.raises(AssertionError, match="no 'done'"):
            session.expect("done", timeout=1)
        assert logins.pamtester(box, alice.name, "wrong", "authenticate").code != 0
        assert alice.state() == "locked"
        assert logins.su(box, alice.name, alice.password, "cat letter").stdout.endswith("late\n")
        session.expect("done")
    assert_closed(alice)


def test_a_session_in_an_encrypted_home_survives_the_service(
    box: Box, new_user: Callable[..., User]
) -> None:
    alice = new_user(*LUKS)
    with users.at_work(alice) as session:
        session.send("echo before >letter; echo d'on'e")
        session.expect("done")
        kill(box)
        assert alice.state() == "active"
        assert alice.ssh("cat letter; echo after >letter").stdout == "before\n"
        session.send("cat letter")
        session.expect("after")
    assert_closed(alice)
    assert alice.ssh("cat letter").stdout == "after\n"
    assert_closed(alice)


def test_systemd_homed_opens_the_image_of_an_encrypted_home(
    other_box: Box, box: Box, new_user: Callable[..., User]
) -> None:
    alice = new_user(*LUKS)
    assert_real_session(alice, alice.ssh(LOOK).stdout)
    assert_closed(alice)
    key = box.read("/var/lib/systemd/home/local.public")
    other_box.write("/var/lib/systemd/home/first.public", key)
    other_box.systemctl("restart", other_box.service)
    there = machines.at(other_box, alice)
    image = other_box.path(f"/home/{alice.name}.home")
    arriving = image.with_suffix(".new")
    copy = ["cp", "--sparse=always", str(box.path(alice.image)), str(arriving)]
    subprocess.run(copy, check=True)
    arriving.rename(image)
    # Who he is lies in the image, which only his password opens.
    there.wait_until("unfixated")
    with there.active():
        pass
    seen = there.ssh(f"cat proof; {LOOK}; echo there >letter").stdout
    assert seen.startswith("in\n")
    assert_real_session(there, seen)
    assert_closed(there)
    shutil.copyfile(image, box.path(alice.image))
    assert alice.ssh("cat letter").stdout == "there\n"
    assert_closed(alice)
    users.remove(there)


def test_a_home_on_a_file_server_comes_and_goes_with_ssh_and_su(
    box: Box, server: Server, new_user: Callable[..., User]
) -> None:
    server.set_password("person", "open server")
    where = ("--cifs-service=//localhost/homes-of-all/bert", "--cifs-user-name=person")
    bert = new_user("--storage=cifs", *where, name="bert", password="open server")
    assert_real_session(bert, bert.ssh(LOOK).stdout)
    assert_closed(bert)
    assert (server.share / "bert/proof").read_text() == "in\n"
    seen = logins.su(box, bert.name, bert.password, f"cat proof; {LOOK}")
    assert "in\n" in seen.stdout
    assert_real_session(bert, seen.stdout)
    assert_closed(bert)


def is_suspended(user: User) -> bool:
    """Whether who reads or writes what is not in memory has to wait."""
    with device_mapper.open_control() as control:
        found = device_mapper.status(control.fileno(), f"home-{user.name}")
    return found is not None and found.is_suspended


def assert_closed(user: User) -> None:
    """After logout nothing is mounted, and the kernel has no device of the home."""
    user.wait_until("inactive")
    assert not user.is_mounted()
    wait_for(lambda: traces(user) == [], "nothing is left", describe=lambda: str(traces(user)))


def traces(user: User) -> list[str]:
    """What the kernel still has of a home."""
    images = [path for path in verifying.loops() if user.name in path]
    return [*verifying.devices(), *images]
