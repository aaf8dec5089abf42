"""Killed at any moment, daemon or worker: every home is usable or was never there."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import Pending, Service, reference, short, wait_until
from tests.service.userdb import UserDatabase

#: How long the random rounds may take together; more rounds on a faster machine.
TIME_S = 20.0
SEED = int(os.environ.get("HOMEMGR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))

Operation = Callable[[Service, str], Pending]


def update_text(name: str) -> str:
    return people.text(people.record(name, realName="Changed"))


def begin_create(service: Service, name: str) -> Pending:
    return service.begin("CreateHome", "s", people.text(people.record(name)))


def begin_activate(service: Service, name: str) -> Pending:
    service.create(name)
    return service.begin("ActivateHome", "ss", name, secret(PASSWORD))


def begin_acquire(service: Service, name: str) -> Pending:
    service.create(name)
    return service.begin("AcquireHome", "ssb", name, secret(PASSWORD), False)


def begin_deactivate(service: Service, name: str) -> Pending:
    service.create(name)
    service.activate(name)
    return service.begin("DeactivateHome", "s", name)


def begin_passwd(service: Service, name: str) -> Pending:
    service.create(name)
    change = (name, secret(OTHER_PASSWORD), secret(PASSWORD))
    return service.begin("ChangePasswordHome", "sss", *change)


def begin_update(service: Service, name: str) -> Pending:
    service.create(name)
    return service.begin("UpdateHome", "s", update_text(name))


def begin_remove(service: Service, name: str) -> Pending:
    service.create(name)
    return service.begin("RemoveHome", "s", name)


OPERATIONS: dict[str, Operation] = {
    "create": begin_create,
    "activate": begin_activate,
    "acquire": begin_acquire,
    "deactivate": begin_deactivate,
    "passwd": begin_passwd,
    "update": begin_update,
    "remove": begin_remove,
}
#: After these a home may be gone.
MAY_VANISH = ("create", "remove")


def assert_nothing_left(service: Service) -> None:
    """No tree half made or half deleted."""
    names = os.listdir(service.site.base) if service.site.base.exists() else []
    assert [name for name in names if name.startswith(".")] == []
    assert [name for name in os.listdir(service.site.records) if name.startswith(".")] == []


def assert_usable(service: Service, name: str) -> None:
    """It opens with one of its passwords, shows its files and closes."""
    words = secret(PASSWORD, OTHER_PASSWORD)
    with reference(service.client, "AcquireHome", "ssb", name, words, False):
        assert service.state(name) == "active"
        assert (service.path_of(name) / ".identity").exists()
    service.wait_for(name, "inactive")


def assert_absent(service: Service, name: str) -> None:
    """Nobody has ever heard of it."""
    assert not (service.site.base / f"{name}.homedir").exists()
    assert not (service.site.records / f"{name}.identity").exists()
    assert service.error("GetHomeByName", "s", name) == "NoSuchHome"
    service.create(name)


def is_listed(service: Service, name: str) -> bool:
    return name in service.states()


def has_ended(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def kill(pid: int) -> bool:
    """Kill a process and wait for its end; False if it has ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    wait_until(partial(has_ended, pid), "the process to end")
    return True


def kill_everything(service: Service, chance: random.Random) -> None:
    """What systemd does when a service dies: its other processes are killed as well."""
    server = service.job_server()
    workers = service.workers()
    service.kill()
    for pid in workers if chance.random() < 0.5 else []:
        kill(pid)
    for pid in (server, *workers):
        wait_until(partial(has_ended, pid), "processes to end")


def test_daemon_killed_at_random_moments_leaves_usable_homes(own_service: Service) -> None:
    service = own_service
    chance = random.Random(SEED)
    end = time.monotonic() + TIME_S
    for number in itertools.count():
        what = list(OPERATIONS)[number % len(OPERATIONS)]
        if time.monotonic() > end:
            break
        pending = OPERATIONS[what](service, name := f"{what}{number}")
        time.sleep(chance.uniform(0, 0.04))
        kill_everything(service, chance)
        # Nobody waits for a service that is dead.
        pending.failure(within_s=10)
        service.start()
        assert_nothing_left(service)
        if name in service.states():
            assert_usable(service, name)
        else:
            assert what in MAY_VANISH, f"seed {SEED}, {what} in round {number}"
            assert_absent(service, name)
        service.call("RemoveHome", "s", name)
    assert service.states() == {}
    assert_nothing_left(service)
    assert os.listdir(service.site.base) == []
    assert os.listdir(service.site.blobs) == []


@pytest.mark.parametrize("what", OPERATIONS)
def test_killed_worker_fails_its_caller_at_once_and_the_home_stays_usable(
    service: Service, what: str
) -> None:
    for number in range(4):
        name = f"{what}{number}"
        with service.paused():
            pending = OPERATIONS[what](service, name) if what == "create" else None
            if pending is not None:
                service.wait_for(name, "creating")
        pending = pending or OPERATIONS[what](service, name)
        killed = False
        while pending.is_alive() and not killed:
            for pid in service.workers():
                time.sleep(0.002 * number)
                killed = kill(pid)
        failure = pending.failure(within_s=2.0)
        assert failure in ("Failed", ""), f"{what} {number}"
        if (service.site.base / f"{name}.homedir").exists():
            # Complete before the worker died: found like any home on disk.
            wait_until(partial(is_listed, service, name), f"{name} to be found")
        if name in service.states():
            assert_usable(service, name)
            service.call("RemoveHome", "s", name)
        else:
            assert what in MAY_VANISH
            assert_absent(service, name)
            service.call("RemoveHome", "s", name)
        assert_nothing_left(service)


def test_killed_worker_is_no_wrong_password(service: Service) -> None:
    service.create("anna")
    with service.paused():
        pending = service.begin("ActivateHome", "ss", "anna", secret(PASSWORD))
        service.wait_for("anna", "activating")
    while pending.is_alive():
        for pid in service.workers():
            kill(pid)
    if failure := pending.failure():
        assert failure == "Failed"
    assert "badAuthenticationCounter" not in str(service.user_record("anna")["status"])


def test_service_whose_job_server_died_ends_so_that_it_is_restarted(own_service: Service) -> None:
    own_service.create("bert")
    own_service.activate("bert")
    os.kill(own_service.job_server(), signal.SIGKILL)
    assert own_service.wait_for_end(within_s=5.0) != 0
    own_service.start()
    assert own_service.state("bert") == "active"
    own_service.deactivate("bert")


def test_service_that_lost_its_bus_ends_and_homes_stay(own_service: Service) -> None:
    own_service.create("cleo")
    held = own_service.acquire("cleo")
    own_service.stop()
    assert (own_service.path_of("cleo") / ".identity").exists()
    own_service.start()
    held.close()
    own_service.wait_for("cleo", "inactive")


def test_stop_lets_running_operations_finish_and_answers_them(own_service: Service) -> None:
    own_service.create("dirk")
    with own_service.paused():
        pending = own_service.begin("ActivateHome", "ss", "dirk", secret(PASSWORD))
        own_service.wait_for("dirk", "activating")
        own_service.ask_to_stop()
    assert own_service.wait_for_end(within_s=10.0) == 0
    assert pending.failure() == ""
    own_service.start()
    assert own_service.state("dirk") == "active"


def test_second_daemon_is_refused_with_a_sentence_and_changes_nothing(service: Service) -> None:
    service.create("elsa")
    before = service.site.digest()
    code, output = service.start_another()
    assert code != 0
    assert "Traceback" not in output
    assert "org.freedesktop.home1" in output
    assert service.site.digest() == before
    service.activate("elsa")
    service.deactivate("elsa")
    with UserDatabase(service.site.userdb_socket) as database:
        assert database.ask("GetUserRecord", userName="elsa")["record"]["userName"] == "elsa"


def test_operation_on_a_home_whose_worker_hangs_can_be_waited_out(service: Service) -> None:
    service.create("falk")
    with service.paused():
        first = service.begin("AuthenticateHome", "ss", "falk", secret(PASSWORD))
        service.wait_for("falk", "authenticating")
        with pytest.raises(BusError) as caught:
            service.activate("falk")
        assert short(caught.value.name) == "HomeBusy"
        # Everything else goes on.
        assert "falk" in service.states()
        service.site.plant("gerd")
        # Longer than a home that was found is asked whose it was.
        service.wait_for("gerd", "unfixated", within_s=15.0)
    first.result()


def holds_lock(pid: int) -> bool:
    """Whether a process has locked something: before that its work has not begun."""
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            if "lock:" in entry.read_text():
                return True
    return False


def hold_worker(service: Service, name: str) -> tuple[Pending, int]:
    """An operation in whose midst the worker was stopped, and that worker."""
    for word in itertools.cycle((OTHER_PASSWORD, PASSWORD)):
        old = PASSWORD if word is OTHER_PASSWORD else OTHER_PASSWORD
        pending = service.begin("ChangePasswordHome", "sss", name, secret(word), secret(old))
        while pending.is_alive():
            for pid in service.workers():
                # It may be done with its work at any moment.
                with suppress(ProcessLookupError, FileNotFoundError):
                    os.kill(pid, signal.SIGSTOP)
                    if holds_lock(pid):
                        return pending, pid
                    os.kill(pid, signal.SIGCONT)
        pending.result()
    raise AssertionError


def test_worker_of_a_killed_service_and_one_of_the_next_are_not_at_work_at_once(
    own_service: Service,
) -> None:
    service = own_service
    service.create("hans")
    pending, worker = hold_worker(service, "hans")
    try:
        service.kill()
        pending.failure(within_s=10)
        service.start()
        words = secret(PASSWORD, OTHER_PASSWORD)
        later = service.begin("ActivateHome", "ss", "hans", words)
        later.join(1.0)
        assert later.is_alive()
        assert service.state("hans") == "activating"
    finally:
        os.kill(worker, signal.SIGCONT)
    later.result()
    service.deactivate("hans")


def test_removal_of_a_home_in_a_place_of_its_own_is_finished_by_the_next_service(
    own_service: Service,
) -> None:
    service = own_service
    place = service.site.home_root / "elsewhere"
    place.mkdir(0o700)
    service.create("ida", imagePath=str(place / "ida.homedir"))
    for number in range(4000):
        path = place / "ida.homedir" / str(number)
        path.touch()
        os.chown(path, 65534, 65534)
    pending = service.begin("RemoveHome", "s", "ida")
    wait_until(lambda: not is_listed(service, "ida"), "the home to be out of sight")
    workers = service.workers()
    service.kill()
    for pid in workers:
        kill(pid)
    pending.failure(within_s=10)
    assert len(os.listdir(place)) == 1
    service.start()
    assert os.listdir(place) == []
    assert not is_listed(service, "ida")
    assert [n for n in os.listdir(service.site.records) if n.startswith("ida")] == []


def test_public_files_left_by_a_kill_are_deleted_and_other_things_left(
    own_service: Service,
) -> None:
    service = own_service
    service.create("olga")
    service.stop()
    blobs = service.site.blobs
    for path in ("gone/avatar", "strange/sub/file", ".#homemgr-blobs-x.1/avatar"):
        (blobs / path).parent.mkdir(parents=True)
        (blobs / path).write_bytes(b"x")
    (blobs / "stray").write_bytes(b"x")
    service.start()
    assert sorted(os.listdir(blobs)) == ["olga", "strange", "stray"]
    assert f"Leaving {blobs}/strange alone" in service.site.log.read_text()


def test_state_that_was_being_written_is_deleted_by_the_next_service(
    own_service: Service,
) -> None:
    own_service.create("petra")
    own_service.stop()
    records = own_service.site.records
    digits = "0123456789abcdef"
    unfinished = [
        f"{directory}.#petra.identity{digits}"
        for directory in ("", "record-stamps/", "transfers/left/", "classic/", "origins/")
    ]
    # The survey of a classic account, of which nothing else was noted.
    unfinished += ["classic/bob.owners", "classic/bob.owners.new"]
    for name in (*unfinished, f".#other-{digits[1:]}", "classic/eva.owners", "classic/eva.json"):
        (records / name).parent.mkdir(exist_ok=True)
        (records / name).write_bytes(b"{}")
    own_service.start()
    assert [name for name in unfinished if (records / name).exists()] == []
    assert sorted(os.listdir(records / "classic")) == ["eva.json", "eva.owners"]
    assert (records / f".#other-{digits[1:]}").exists()
    assert_usable(own_service, "petra")


def test_creation_that_was_done_when_its_worker_died_is_no_failure(service: Service) -> None:
    deaths = 0
    for number in range(20):
        name = f"last{number}"
        image = service.site.base / f"{name}.homedir"
        told = service.site.log.read_text().count("The worker for create died")
        pending = begin_create(service, name)
        while pending.is_alive() and not image.exists():
            pass
        for pid in service.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert pending.failure() == ""
        deaths += service.site.log.read_text().count("The worker for create died") - told
        assert_usable(service, name)
        service.call("RemoveHome", "s", name)
        if deaths == 3:
            return
    assert deaths, "no worker was caught between its last step and its answer"
