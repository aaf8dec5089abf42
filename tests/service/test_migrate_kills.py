"""Services and commands are killed at any moment of a move; the same command makes it good."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from homemgr.wire.messages import BusError
from tests import homes
from tests.service.moving import Line, assert_idle, assert_usable, settle, stages
from tests.service.site import Service

SEED = int(os.environ.get("HOMEMGR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
#: A move takes about so long once its first file is there (s).
MOVE_S = 0.12
ROUNDS = 5


def is_usable(service: Service, user: str) -> bool:
    try:
        assert_usable(service, user)
    except BusError:
        return False
    return True


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_any_moment_there_is_one_home_at_most_and_it_goes_on(
    here: Service, there: Service, line: Line, number: int
) -> None:
    chance = random.Random(SEED + number)
    user = f"k{number}"
    settle(here, user, 25, 30_000)
    victims = chance.choice([[here], [there], [here, there], []])
    moment_s = chance.uniform(0.0, MOVE_S)
    argv, environment = line.command(user)
    with subprocess.Popen(argv, env=environment, start_new_session=True) as command:
        while command.poll() is None and not stages(there, user):
            time.sleep(0.002)
        time.sleep(moment_s)
        for service in victims:
            service.kill()
        if not victims:
            os.killpg(command.pid, signal.SIGKILL)
    for service in victims:
        service.start()
    assert_idle(here, there)
    what = f"seed {SEED}, round {number}: {len(victims)} services after {moment_s:.3f} s"
    usable = [is_usable(service, user) for service in (here, there)]
    assert usable != [True, True], what
    line.move(user)
    assert [is_usable(here, user), is_usable(there, user)] == [False, True], what
    (left,) = here.site.base.glob(f".#homemgr-left-{user}.*")
    arrived = there.site.base / f"{user}.homedir"
    assert homes.compare(left, arrived, leave_out=(b".identity",)) == [], what
