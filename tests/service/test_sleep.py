"""Before the machine sleeps: homes that can be are locked, the others are named in the log."""

from __future__ import annotations

from tests.service.login1 import Login1
from tests.service.site import Service, wait_until


def test_sleep_waits_for_the_service_and_comes_again(own_service: Service) -> None:
    """The service was there first, as after an upgrade of logind."""
    service = own_service
    service.create("anna")
    service.create("bert")
    with (
        service.acquire("anna", please_suspend=True),
        service.acquire("bert"),
        Login1().on(service.site.bus_address) as logind,
    ):
        wait_until(lambda: logind.held == 1, "a lock")
        ((what, who, why, mode),) = logind.asked
        assert (what, who, mode) == ("sleep", "homemgrd", "delay")
        assert "locked" in str(why)
        logind.tell(is_about_to=True)
        wait_until(lambda: logind.held == 0, "the lock to be given back")
        told = [line for line in service.site.log.read_text().splitlines() if "readable" in line]
        (line,) = told
        assert "anna" in line
        assert "no key that could be taken out of memory" in line
        assert service.states() == {"anna": "active", "bert": "active"}
        logind.tell(is_about_to=False)
        wait_until(lambda: logind.held == 1, "the next lock")
        service.restart()
        wait_until(lambda: logind.held == 1 and len(logind.asked) == 3, "a lock of the next one")
        service.stop()
        assert logind.held == 0
        service.start()
    for name in ("anna", "bert"):
        service.wait_for(name, "inactive")


def test_signals_of_sleep_count_from_logind_alone(own_service: Service) -> None:
    service = own_service
    with Login1().on(service.site.bus_address) as logind:
        wait_until(lambda: logind.held == 1, "a lock")
        # Twice, if it was starting just when logind appeared.
        asked = len(logind.asked)
        logind.forge(service.site.bus_address)
        assert logind.held == 1
        assert len(logind.asked) == asked
