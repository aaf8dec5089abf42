"""Homes on sticks: offered as they are plugged in, used, pulled out at rest and in use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests import plugs, verifying
from tests.plugs import Disk, Tools
from tests.service import people
from tests.service.converting import call, convert, undo
from tests.service.cutting import mounts_below
from tests.service.luks.test_luks import SETTINGS
from tests.service.site import Service, Site, short, wait_until

MIB = 48
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    with plugs.udev() as running:
        yield running


@pytest.fixture(scope="module")
def sticks(tools: Tools) -> Iterator[list[Disk]]:
    with plugs.disks(2, MIB) as made:
        yield made


@pytest.fixture
def running(own_service: Service, sticks: list[Disk]) -> Iterator[Service]:
    """A service that leaves neither sticks nor devices."""
    yield own_service
    own_service.call("DeactivateAllHomes")
    for stick in sticks:
        if stick.node is not None:
            stick.pull()
    verifying.wait_until_gone()


def put(service: Service, stick: Disk, name: str) -> None:
    """Have a home made by the service on a stick and nowhere else, pulled out and forgotten."""
    service.create(name, **{**SETTINGS, "diskSize": MIB << 20})
    image = service.site.base / f"{name}.home"
    elsewhere = shutil.move(image, service.site.home_root / f"{name}.image")
    service.call("UnregisterHome", "s", name)
    wait_until(lambda: name not in service.states(), f"{name} to be forgotten")
    stick.write(elsewhere)
    elsewhere.unlink()
    # Seen to come and go: it is not to be mixed up with the stick that is plugged in next.
    wait_for(service, name, "unfixated")
    stick.pull()
    wait_until_unlisted(service, name)


def said(service: Service, *words: str) -> bool:
    """Whether there is a line with all the words in the log."""
    lines = service.site.log.read_text().splitlines()
    return any(all(word in line for word in words) for line in lines)


def image_of(service: Service, name: str) -> str | None:
    """Where a home lies, as far as the service knows it."""
    try:
        (binding,) = service.user_record(name)["binding"].values()  # type: ignore[union-attr]
    except BusError:
        return None
    return str(binding["imagePath"])  # type: ignore[index, call-overload]


def wait_for(service: Service, name: str, *states: str) -> None:
    service.wait_for(name, *states, within_s=WITHIN_S)


def wait_until_unlisted(service: Service, name: str) -> None:
    wait_until(lambda: name not in service.states(), f"{name} to disappear", WITHIN_S)


def write(service: Service, name: str, text: str) -> None:
    home = service.path_of(name)
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid), (home / "note").open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(service: Service, name: str) -> str:
    return (service.path_of(name) / "note").read_text()


def test_a_stick_is_offered_used_and_pulled_at_rest(
    running: Service, sticks: list[Disk], tools: Tools
) -> None:
    stick = sticks[0]
    put(running, stick, "anna")
    stick.plug()
    wait_for(running, "anna", "unfixated")
    # Nothing was opened or mounted to find that out.
    assert verifying.devices() == []
    assert mounts_below(running.site.home_root) == []
    assert not any(path.startswith("/dev/") for path in verifying.loops())
    assert "anna" in tools.ask(running.site, "homectl", "list", "--no-pager")
    asked = ("userdbctl", "user", "anna", "--with-nss=no", "--no-pager")
    assert "anna" in tools.ask(running.site, *asked)
    assert str(image_of(running, "anna")).startswith("/dev/disk/by-uuid/")

    running.activate("anna")
    write(running, "anna", "one")
    # However much is heard of devices, what is still there is in use.
    for _ in range(5):
        tools.run("udevadm", "trigger", "--subsystem-match=block", "--action=change")
    tools.settle()
    running.deactivate("anna")
    wait_for(running, "anna", "inactive")
    stick.pull()
    wait_for(running, "anna", "absent")
    assert running.error("ActivateHome", "ss", "anna", people.secret(people.PASSWORD)) == (
        "HomeAbsent"
    )
    stick.plug()
    wait_for(running, "anna", "inactive")
    running.activate("anna")
    assert read(running, "anna") == "one"
    running.deactivate("anna")

    # Found again by a service that comes later, and the user forgotten: offered anew.
    running.restart()
    wait_for(running, "anna", "inactive")
    running.call("UnregisterHome", "s", "anna")
    wait_for(running, "anna", "unfixated")
    running.call("RemoveHome", "s", "anna")
    wait_for(running, "anna", "unfixated")
    stick.pull()
    wait_until_unlisted(running, "anna")


@pytest.mark.parametrize("name", ["bert", "vera"])
def test_a_stick_is_pulled_while_in_use(running: Service, sticks: list[Disk], name: str) -> None:
    stick, is_locked = sticks[0], name == "vera"
    put(running, stick, name)
    stick.plug()
    wait_for(running, name, "unfixated")
    running.activate(name)
    write(running, name, "kept")
    home = running.path_of(name)
    uid = home.stat().st_uid
    with program_in(home, uid) as program, program_in(home, 0) as other:
        if is_locked:
            running.call("LockHome", "s", name)
        stick.pull()
        wait_for(running, name, "absent")
        assert mounts_below(running.site.home_root) == []
        assert program.wait(WITHIN_S) < 0
        assert said(running, name, "was pulled out while it was in use", "Ended were")
        # Who is not the user stays and gets errors.
        assert other.poll() is None
        stick.plug()
        wait_for(running, name, "inactive")
        # The name of its device is in use as long as he does.
        secret = people.secret(people.PASSWORD)
        assert running.error("ActivateHome", "ss", name, secret) == "HomeInUse"
        other.kill()
        other.wait()
        running.activate(name)
        assert read(running, name) == "kept"
        running.deactivate(name)


def test_a_reference_to_what_was_pulled_keeps_nothing(running: Service, sticks: list[Disk]) -> None:
    put(running, sticks[0], "carl")
    sticks[0].plug()
    wait_for(running, "carl", "unfixated")
    with running.acquire("carl"):
        sticks[0].pull()
        wait_for(running, "carl", "absent")
    verifying.wait_until_gone()
    sticks[0].plug()
    wait_for(running, "carl", "inactive")


def test_a_stick_takes_nobodys_place(running: Service, sticks: list[Disk]) -> None:
    first, second = sticks
    put(running, first, "dora")
    put(running, second, "dora")
    first.plug()
    wait_for(running, "dora", "unfixated")
    image = image_of(running, "dora")
    second.plug()
    wait_until(lambda: said(running, "Ignoring", "user dora has a home"), "the second", WITHIN_S)
    assert image_of(running, "dora") == image
    # The one that came later has its turn when the first is gone.
    first.pull()
    wait_until(lambda: image_of(running, "dora") not in (None, image), "the second", WITHIN_S)
    second.pull()
    wait_until_unlisted(running, "dora")

    running.create("dora")
    second.plug()
    wait_until(lambda: said(running, "dora.homedir already"), "the home here to win", WITHIN_S)
    assert running.state("dora") == "inactive"
    assert str(image_of(running, "dora")).endswith("dora.homedir")
    running.call("RemoveHome", "s", "dora")
    wait_for(running, "dora", "unfixated")
    assert running.error("CreateHome", "s", people.text(people.record("dora"))) == "UserNameExists"


def test_a_stick_of_another_machine_is_not_trusted(
    running: Service, sticks: list[Disk], new_site: Callable[..., Site]
) -> None:
    stranger = Service(new_site())
    try:
        put(stranger, sticks[1], "emil")
        key = stranger.call("GetSigningKey", "s", "local.public")[0]
    finally:
        stranger.close()
    wait_until_unlisted(running, "emil")
    sticks[1].plug()
    wait_for(running, "emil", "unfixated")
    with pytest.raises(BusError) as refused:
        running.activate("emil")
    assert short(refused.value.name) == "BadSignature"
    assert "accept it with: homemgr origins trust" in str(refused.value)
    assert running.state("emil") == "unfixated"
    verifying.wait_until_gone()
    running.call("AddSigningKey", "sst", "stranger.public", key, 0)
    running.activate("emil")
    running.deactivate("emil")


def test_what_a_home_was_before_it_left_its_stick_takes_not_its_place(
    running: Service, sticks: list[Disk], tools: Tools
) -> None:
    """And it can go to another one, which is known by a lasting name from then on."""
    first, second = sticks
    put(running, first, "nora")
    first.plug()
    wait_for(running, "nora", "unfixated")
    running.activate("nora")
    write(running, "nora", "first")
    running.deactivate("nora")
    image = image_of(running, "nora")
    convert(running, "nora", people.PASSWORD, storage="directory")
    assert str(image_of(running, "nora")).endswith("nora.homedir")
    first.pull()
    first.plug()
    wait_until(lambda: said(running, "nora.homedir already"), "the home here to win", WITHIN_S)
    running.restart()
    assert running.state("nora") == "inactive"
    undo(running, "nora")
    assert (image_of(running, "nora"), running.state("nora")) == (image, "inactive")
    assert list(running.site.base.iterdir()) == []
    node = second.plug()
    subprocess.run(["blkdiscard", "--zeroout", "--force", str(node)], check=True)
    convert(running, "nora", people.PASSWORD, storage="luks", to=str(node))
    assert image_of(running, "nora") not in (image, str(node))
    assert str(image_of(running, "nora")).startswith("/dev/disk/by-uuid/")
    first.pull()
    call(running, "ConfirmConversion", "s", "nora")
    second.pull()
    wait_for(running, "nora", "absent")
    second.plug()
    wait_for(running, "nora", "inactive")
    running.activate("nora")
    assert read(running, "nora") == "first"
    running.deactivate("nora")


def program_in(home: Path, uid: int) -> subprocess.Popen[bytes]:
    """Somebody's program that works in a home."""
    code = f"import os; os.setuid({uid}); print(flush=True); os.read(0, 1)"
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    program.stdout.readline()
    return program
