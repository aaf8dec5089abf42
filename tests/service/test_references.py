"""A descriptor keeps a home active, the end of the last one ends its use."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from functools import partial

import pytest

from homemgr.files import Fd
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, at_once, reference, short, wait_until

#: Longer than the grace of the service under test.
LONG_S = 0.25

CREDENTIAL_FAILURES = {"BadPassword", "BadPasswordAndNoToken", "BadRecoveryKey", "TokenPinNeeded"}


def test_held_reference_keeps_the_home_active_and_closing_it_deactivates(service: Service) -> None:
    service.create("anna")
    with service.acquire("anna"):
        time.sleep(LONG_S)
        assert service.state("anna") == "active"
    service.wait_for("anna", "inactive")


def test_every_reference_counts_of_both_kinds(service: Service) -> None:
    service.create("bert")
    first = service.acquire("bert")
    second = reference(service.client, "AcquireHome", "ssb", "bert", secret(PASSWORD), True)
    third = service.ref("bert")
    for fd in (first, second):
        fd.close()
        time.sleep(LONG_S)
        assert service.state("bert") == "active"
    third.close()
    service.wait_for("bert", "inactive")


def test_reference_is_a_fifo_for_writing_that_is_not_inherited(service: Service) -> None:
    service.create("cleo")
    with service.acquire("cleo") as fd:
        fifo = service.site.runtime / "home" / "cleo.dont-suspend"
        assert os.path.samestat(os.fstat(fd.fileno()), fifo.stat())
        assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
        flags = fcntl.fcntl(fd.fileno(), fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == os.O_WRONLY
        assert flags & os.O_NONBLOCK
    service.wait_for("cleo", "inactive")


def test_reference_of_a_killed_process_ends_with_it(service: Service) -> None:
    service.create("dirk")
    with service.acquire("dirk") as fd:
        holder = subprocess.Popen(["sleep", "60"], pass_fds=[fd.fileno()])
    time.sleep(LONG_S)
    assert service.state("dirk") == "active"
    holder.kill()
    holder.wait()
    service.wait_for("dirk", "inactive")


def test_home_activated_without_a_reference_stays_until_one_comes_and_goes(
    service: Service,
) -> None:
    service.create("elsa")
    service.activate("elsa")
    time.sleep(LONG_S)
    assert service.state("elsa") == "active"
    service.acquire("elsa").close()
    service.wait_for("elsa", "inactive")


def test_failed_acquire_does_not_end_a_use_without_references(service: Service) -> None:
    service.create("falk")
    service.activate("falk")
    attempt = ("AcquireHome", "ssb", "falk")
    assert service.error(*attempt, "{}", False) == "BadPassword"
    assert service.error(*attempt, secret(WRONG_PASSWORD), False) == "BadPassword"
    time.sleep(LONG_S)
    assert service.state("falk") == "active"
    service.deactivate("falk")


def test_failed_acquire_does_not_end_a_use_with_references(service: Service) -> None:
    service.create("gerd")
    with service.acquire("gerd"):
        assert service.error("AcquireHome", "ssb", "gerd", "{}", False) == "BadPassword"
        time.sleep(LONG_S)
        assert service.state("gerd") == "active"
    service.wait_for("gerd", "inactive")


def test_acquire_during_a_deactivation_waits_for_it(service: Service) -> None:
    service.create("hugo")
    service.activate("hugo")
    with service.paused():
        ending = service.begin("DeactivateHome", "s", "hugo")
        service.wait_for("hugo", "deactivating")
        coming = service.begin("AcquireHome", "ssb", "hugo", secret(PASSWORD), False)
        time.sleep(0.1)
        assert coming.is_alive()
    assert ending.failure() == ""
    with coming.reference():
        assert service.state("hugo") == "active"
        assert (service.path_of("hugo") / ".identity").exists()
        time.sleep(LONG_S)
        assert service.state("hugo") == "active"
    service.wait_for("hugo", "inactive")


def test_reference_that_comes_during_the_grace_calls_the_deactivation_off(
    service: Service,
) -> None:
    service.create("ilse")
    service.acquire("ilse").close()
    with service.ref("ilse"):
        time.sleep(LONG_S)
        assert service.state("ilse") == "active"
    service.wait_for("ilse", "inactive")


def test_forty_logins_back_to_back_find_a_usable_home_forty_times(service: Service) -> None:
    service.create("jutta", rateLimitBurst=1000)
    for _ in range(40):
        with service.acquire("jutta"):
            assert (service.path_of("jutta") / ".identity").exists()
        # As the PAM module does, after it closed its reference.
        service.call("ReleaseHome", "s", "jutta")
    assert service.state("jutta") == "inactive"


def test_forty_logins_that_only_close_find_a_usable_home_forty_times(service: Service) -> None:
    service.create("klaus", rateLimitBurst=1000)
    for pause in range(40):
        with service.acquire("klaus"):
            assert (service.path_of("klaus") / ".identity").exists()
        # Around the end of the grace, where the deactivation begins.
        time.sleep(0.095 + pause % 5 * 0.003 if pause % 3 == 0 else 0)
    service.wait_for("klaus", "inactive")


def test_sixty_four_logins_of_as_many_users_at_once(service: Service) -> None:
    names = [f"many{number}" for number in range(64)]
    for name in names:
        service.create(name)
    held = at_once(partial(service_acquire, service, name) for name in names)
    fds = [fd for fd in held if isinstance(fd, Fd)]
    assert len(fds) == 64, [error for error in held if isinstance(error, BusError)]
    assert all(service.states()[name] == "active" for name in names)
    for fd in fds:
        fd.close()
    wait_until(lambda: not {"active", "deactivating"} & set(service.states().values()), "the end")
    for name in names:
        service.call("RemoveHome", "s", name)


def test_sixty_four_logins_of_one_user_at_once(service: Service) -> None:
    service.create("lotte", rateLimitBurst=1000)
    held = at_once(partial(service_acquire, service, "lotte") for _ in range(64))
    fds = [fd for fd in held if isinstance(fd, Fd)]
    assert len(fds) == 64, [error for error in held if isinstance(error, BusError)]
    assert service.state("lotte") == "active"
    for fd in fds[1:]:
        fd.close()
    time.sleep(LONG_S)
    assert service.state("lotte") == "active"
    fds[0].close()
    service.wait_for("lotte", "inactive")


def service_acquire(service: Service, name: str) -> Fd:
    """Acquire on a connection of its own, as each login does."""
    with service.new_client() as client:
        return reference(client, "AcquireHome", "ssb", name, secret(PASSWORD), False)


def test_wrong_password_among_right_ones_fails_alone(service: Service) -> None:
    service.create("mona", rateLimitBurst=1000)
    words = [WRONG_PASSWORD if number % 4 == 0 else PASSWORD for number in range(16)]

    def acquire(word: str) -> Fd:
        with service.new_client() as client:
            return reference(client, "AcquireHome", "ssb", "mona", secret(word), False)

    for word, result in zip(words, at_once(partial(acquire, w) for w in words), strict=True):
        if isinstance(result, Fd):
            result.close()
            assert word == PASSWORD
        else:
            assert (word, short(result.name)) == (WRONG_PASSWORD, "BadPassword")
    service.wait_for("mona", "inactive")


def test_ref_home_never_gives_a_credential_error(service: Service) -> None:
    service.create("nils")
    assert service.error("RefHome", "sb", "nils", False) == "HomeNotActive"
    guess = service.begin("AcquireHome", "ssb", "nils", secret(WRONG_PASSWORD), False)
    for _ in range(10):
        assert service.error("RefHome", "sb", "nils", False) not in CREDENTIAL_FAILURES
        time.sleep(0.02)
    service.activate("nils")
    change = ("nils", secret(OTHER_PASSWORD), secret(PASSWORD))
    with service.paused():
        changing = service.begin("ChangePasswordHome", "sss", *change)
        service.wait_for("nils", "passwd-while-active")
        waiting = service.begin("RefHome", "sb", "nils", False)
    changing.result()
    waiting.reference().close()
    service.wait_for("nils", "inactive")
    assert guess.failure() == "BadPassword"


def test_session_that_opens_while_the_home_is_being_activated_gets_its_reference(
    service: Service,
) -> None:
    service.create("olga")
    with service.paused():
        acquiring = service.begin("AcquireHome", "ssb", "olga", secret(PASSWORD), False)
        service.wait_for("olga", "activating-for-acquire")
        opening = service.begin("RefHome", "sb", "olga", False)
    acquiring.reference().close()
    with opening.reference():
        time.sleep(LONG_S)
        assert service.state("olga") == "active"
    service.wait_for("olga", "inactive")


def test_release_is_busy_while_a_reference_is_held(service: Service) -> None:
    service.create("peer")
    with service.acquire("peer"):
        failure = service.failure("ReleaseHome", "s", "peer")
        assert short(failure.name) == "HomeBusy"
        assert service.state("peer") == "active"
    service.call("ReleaseHome", "s", "peer")
    assert service.state("peer") == "inactive"
    service.call("ReleaseHome", "s", "peer")


def test_deactivate_does_not_look_at_references_and_they_stay_harmless(service: Service) -> None:
    service.create("quin")
    with service.acquire("quin"):
        service.deactivate("quin")
        assert service.state("quin") == "inactive"
        service.activate("quin")
    service.wait_for("quin", "inactive")


def test_session_without_password_holds_a_reference_and_activates_later(service: Service) -> None:
    service.create("rita")
    activate = ("ActivateHomeIfReferenced", "ss", "rita", secret(PASSWORD))
    assert service.error(*activate) == "HomeNotReferenced"
    with service.ref("rita", "RefHomeUnrestricted"):
        assert service.state("rita") == "inactive"
        service.call(*activate)
        assert service.state("rita") == "active"
    service.wait_for("rita", "inactive")


def test_nothing_is_left_of_a_reference_once_the_home_is_inactive(service: Service) -> None:
    service.create("sara")
    service.acquire("sara").close()
    service.wait_for("sara", "inactive")
    assert not (service.site.runtime / "home" / "sara.dont-suspend").exists()


def test_references_survive_a_stop_and_a_restart(own_service: Service) -> None:
    own_service.create("theo")
    own_service.create("uwe")
    held, gone = own_service.acquire("theo"), own_service.acquire("uwe")
    own_service.stop()
    assert (own_service.path_of("theo") / ".identity").exists()
    gone.close()
    own_service.start()
    assert own_service.state("theo") == "active"
    own_service.wait_for("uwe", "inactive")
    time.sleep(LONG_S)
    assert own_service.state("theo") == "active"
    held.close()
    own_service.wait_for("theo", "inactive")


def test_references_survive_a_killed_daemon(own_service: Service) -> None:
    own_service.create("vroni")
    own_service.create("wanda")
    own_service.activate("wanda")
    held = own_service.acquire("vroni")
    own_service.kill()
    own_service.start()
    assert own_service.states() == {"vroni": "active", "wanda": "active"}
    time.sleep(LONG_S)
    assert own_service.state("vroni") == "active"
    with own_service.ref("vroni"):
        held.close()
        time.sleep(LONG_S)
        assert own_service.state("vroni") == "active"
    own_service.wait_for("vroni", "inactive")
    assert own_service.state("wanda") == "active"


@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_login_process_that_dies_in_mid_call_leaves_no_reference(
    service: Service, signal_name: str
) -> None:
    name = f"xenia{signal_name.lower()}"
    service.create(name)
    program = (
        "import sys; from homemgr.wire.client import Client; print('up', flush=True);"
        "Client(sys.argv[1]).call('org.freedesktop.home1', '/org/freedesktop/home1',"
        "'org.freedesktop.home1.Manager', 'AcquireHome', 'ssb', (sys.argv[2], sys.argv[3], False))"
    )
    arguments = [service.site.bus_address, name, people.secret(PASSWORD)]
    with service.paused():
        login = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        service.wait_for(name, "activating-for-acquire")
        getattr(login, {"KILL": "kill", "TERM": "terminate"}[signal_name])()
        login.communicate()
    service.wait_for(name, "inactive")
