"""A home moves by the real command line: progress, ^C, callers that leave, starts, new records."""

from __future__ import annotations

import json
import os
import signal
import uuid

import pytest

from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.converting import begin as begin_conversion
from tests.service.converting import call, wait
from tests.service.moving import (
    Line,
    assert_idle,
    assert_usable,
    begin,
    fingerprint,
    forward,
    phases,
    settle,
    stages,
)
from tests.service.site import Service, wait_until

#: Files of a home, and the size of each (bytes).
COUNT, SIZE = 60, 200_000


@pytest.fixture
def user(here: Service) -> str:
    """A user with a home that takes a moment to send."""
    name = f"u{uuid.uuid4().hex[:8]}"
    settle(here, name, COUNT, SIZE)
    return name


def has_some(there: Service, user: str) -> bool:
    """Whether some of it has come."""
    return any(any(path.glob("file-0*")) for path in stages(there, user))


def test_interrupted_on_the_terminal_it_ends_in_order_and_goes_on(
    here: Service, there: Service, line: Line, user: str
) -> None:
    # Some of it is under way already, between the two, and counts as sent.
    line.slow_from(COUNT * SIZE // 8)
    with line.moving(user) as screen:
        screen.wait_for(r"\[=+> +\] +\d+%.* of 11\.\d MiB")
        wait_until(lambda: has_some(there, user), "some of it")
        screen.program.send_signal(signal.SIGINT)
        assert screen.end() == 130
    assert "Ending it" in screen.shown
    assert "Run the same command again" in screen.shown
    assert_idle(here, there)
    assert (phases(here)[user], phases(there)[user]) == ("sending", "receiving")
    assert user not in there.states()
    assert_usable(here, user)
    line.speed_up()
    line.move(user)
    assert_usable(there, user)
    assert here.state(user) == "absent"


def test_a_caller_who_leaves_the_bus_calls_off_what_he_began(
    here: Service, there: Service, user: str
) -> None:
    line_of_sender = here.site.log.read_text().count("its caller is gone")
    line_of_receiver = there.site.log.read_text().count("its caller is gone")
    with here.new_client() as sender, there.new_client() as receiver:
        trust = json.dumps({"trust": [fingerprint(here)]})
        with (
            begin(receiver, "ReceiveHome", "s", trust) as one,
            begin(sender, "SendHome", "ss", user, "{}") as other,
        ):
            forward(one, other, COUNT * SIZE // 2)
            assert here.error("RemoveHome", "s", user) == "org.homemgr1.Error.TransferBusy"
            # Nor is anything put in its place.
            for job in (
                begin_conversion(here, user, people.PASSWORD, storage="fscrypt"),
                str(call(here, "RestoreSnapshot", "sss", user, "first", "{}")[0]),
            ):
                with pytest.raises(BusError, match="is being copied"):
                    wait(here, job)
            sender.close()
            receiver.close()
            # The stream stays: nothing but the caller is gone.
            assert_idle(here, there)
    assert here.site.log.read_text().count("its caller is gone") == line_of_sender + 1
    assert there.site.log.read_text().count("its caller is gone") == line_of_receiver + 1
    assert_usable(here, user)
    here.call("RemoveHome", "s", user)


def test_a_start_leaves_alone_what_is_on_its_way_and_what_has_left(
    here: Service, there: Service, line: Line, user: str
) -> None:
    dead = there.site.base / ".#homemgr-in-ghost.homedir.01234567"
    line.slow_from(COUNT * SIZE // 2)
    with line.moving(user) as screen:
        wait_until(lambda: has_some(there, user), "some of it")
        for service in (here, there):
            service.kill()
        screen.end()
    dead.mkdir(0o700)
    (dead / "file").write_text("of a transfer nobody knows")
    (arrived,) = stages(there, user)
    before = sorted(os.listdir(arrived))
    here.start()
    there.start()
    assert not dead.exists()
    assert sorted(os.listdir(arrived)) == before
    assert_usable(here, user)
    line.speed_up()
    line.move(user)
    (left,) = here.site.base.glob(f".#homemgr-left-{user}.*")
    here.restart()
    there.restart()
    assert left.is_dir()
    assert here.state(user) == "absent"
    assert_usable(there, user)


def test_the_newer_record_in_a_home_leaves_with_it(
    here: Service, there: Service, line: Line, user: str
) -> None:
    """Of a home that was used elsewhere: what this machine has of it is older."""
    path = here.site.records / f"{user}.identity"
    older = path.read_bytes()
    new, old = people.secret(people.OTHER_PASSWORD), people.secret(people.PASSWORD)
    here.call("ChangePasswordHome", "sss", user, new, old)
    here.stop()
    path.write_bytes(older)
    here.start()
    line.move(user)
    there.activate(user, people.OTHER_PASSWORD)
    there.deactivate(user)
