"""A worker waits for the next job, and nothing depends on its being alive."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.work import server
from tests.service import people
from tests.service.site import children, name_of, wait_until

if TYPE_CHECKING:
    from tests.service.site import Service


def spares(service: Service) -> list[int]:
    return [pid for pid in children(service.job_server()) if name_of(pid) == server.SPARE]


def test_logins_one_after_the_other_are_done_by_one_worker_that_then_ends(
    service: Service,
) -> None:
    service.create("emil")
    wait_until(lambda: len(spares(service)) == 1, "a worker to wait")
    (spare,) = spares(service)
    for _ in range(3):
        service.activate("emil")
        service.deactivate("emil")
        wait_until(lambda: service.workers() == [], "the worker to be done")
        assert spare in spares(service)
    # What it may remember of the password goes with it.
    wait_until(lambda: spare not in spares(service), "the worker to end")
    wait_until(lambda: len(spares(service)) == 1, "a fresh worker to wait")


def test_a_worker_ends_with_a_login_that_failed(service: Service) -> None:
    service.create("frida")
    wait_until(lambda: len(spares(service)) == 1, "a worker to wait")
    (spare,) = spares(service)
    wrong = people.secret(people.WRONG_PASSWORD)
    assert service.error("ActivateHome", "ss", "frida", wrong) == "BadPassword"
    wait_until(lambda: spare not in spares(service), "the worker to end")
    wait_until(lambda: len(spares(service)) == 1, "a fresh worker to wait")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker to be gone")


def test_a_waiting_worker_that_is_killed_is_not_missed(service: Service) -> None:
    service.create("berta")
    for _ in range(3):
        wait_until(lambda: len(spares(service)) == 1, "a worker to wait")
        kill(spares(service)[0])
        service.activate("berta")
        service.call("DeactivateHome", "s", "berta")
    assert service.states()["berta"] == "inactive"


def test_a_worker_that_dies_before_it_begins_fails_no_login(service: Service) -> None:
    service.create("dora")
    wait_until(lambda: len(spares(service)) == 1, "a worker to wait")
    (spare,) = spares(service)
    os.kill(spare, signal.SIGSTOP)
    login = service.begin("ActivateHome", "ss", "dora", people.secret(people.PASSWORD))
    service.wait_for("dora", "activating")
    # It has been given the job, which it can neither take nor refuse.
    wait_until(lambda: spare not in spares(service) or len(spares(service)) == 2, "another spare")
    os.kill(spare, signal.SIGKILL)
    assert login.failure() == ""
    service.deactivate("dora")


def test_a_waiting_worker_holds_nothing_of_the_job_before(service: Service) -> None:
    service.create("carla")
    service.activate("carla")
    service.deactivate("carla")
    wait_until(lambda: len(spares(service)) == 1, "a worker to wait")
    (spare,) = spares(service)
    # The one it waits at and the one it leaves mounts at, once its rehearsal is over.
    wait_until(lambda: len(own_sockets(spare)) == 2, "it to have two sockets only")


def own_sockets(pid: int) -> set[str]:
    """All but its standard streams, of which some may be sockets as well."""
    links: dict[str, str] = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it closes what we look at
            links[number] = os.readlink(f"/proc/{pid}/fd/{number}")
    standard = {links.get(number) for number in ("0", "1", "2")}
    return {link for link in links.values() if link.startswith("socket:")} - standard
