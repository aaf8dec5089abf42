"""What a local user or the owner of a home may try against everybody else's logins."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.record.jsontext import Json, JsonObject
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.authority import Authority
from tests.service.holders import Stranger, stranger
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import MANAGER, MANAGER_PATH, NAME, Service, Site, wait_until


def test_holder_that_writes_into_its_reference_does_not_busy_the_service(service: Service) -> None:
    service.create("anna")
    with service.acquire("anna") as fd:
        # The flags belong to the holder too: from now on every write waits for its turn.
        os.set_blocking(fd.fileno(), True)
        command = ["dd", "if=/dev/zero", "bs=64k", "status=none"]
        writer = subprocess.Popen(command, stdout=fd.fileno())
    try:
        before = processor_time_s(service.pid)
        time.sleep(1)
        assert processor_time_s(service.pid) - before < 0.1
        assert service.state("anna") == "active"
    finally:
        writer.kill()
        writer.wait()
    service.wait_for("anna", "inactive")


def processor_time_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_wrong_password_is_answered_late_and_keeps_nobody_waiting(
    new_site: Callable[..., Site],
) -> None:
    # Half of it at least, as libpam has it.
    service = Service(new_site(), failure_delay_s=6.0)
    service.create("anna")
    begun = time.monotonic()
    guess = service.begin("ActivateHome", "ss", "anna", secret(WRONG_PASSWORD))
    wait_until(lambda: "badAuthenticationCounter" in str(service.user_record("anna")), "the guess")
    service.activate("anna")
    service.deactivate("anna")
    assert guess.is_alive()
    assert guess.failure() == "BadPassword"
    assert time.monotonic() - begun >= 3
    service.close()


def test_guess_at_the_end_of_the_grace_does_not_keep_the_home_active(service: Service) -> None:
    service.create("bert")
    service.acquire("bert").close()
    with service.paused():
        guess = service.begin("AcquireHome", "ssb", "bert", secret(WRONG_PASSWORD), False)
        service.wait_for("bert", "authenticating-for-acquire")
        # The grace ends while the guess is being looked at.
        time.sleep(0.2)
    service.wait_for("bert", "inactive")
    assert guess.failure() == "BadPassword"


def test_guesses_that_wait_do_not_make_a_release_fail(service: Service) -> None:
    service.create("cleo")
    service.activate("cleo")
    with service.paused():
        first = service.begin("AuthenticateHome", "ss", "cleo", secret(PASSWORD))
        service.wait_for("cleo", "authenticating-while-active")
        release = service.begin("ReleaseHome", "s", "cleo")
        time.sleep(0.1)
        guess = service.begin("AcquireHome", "ssb", "cleo", "{}", False)
        time.sleep(0.1)
    assert first.failure() == ""
    assert release.failure() == ""
    assert guess.failure() == "BadPassword"
    assert service.state("cleo") == "inactive"


@pytest.mark.parametrize("left", ["anna.homedir", "bert.homedir", "anna@example.com.homedir"])
def test_leftover_of_another_removal_costs_no_record(own_service: Service, left: str) -> None:
    """The image of the home is on a disk that is away while the service starts."""
    elsewhere = own_service.site.home_root / "disk"
    elsewhere.mkdir(mode=0o700)
    own_service.create("anna", aliases=["bert"], imagePath=str(elsewhere / "anna.homedir"))
    own_service.stop()
    away = elsewhere.rename(own_service.site.home_root / "unplugged")
    leftover = own_service.site.base / f".#homemgr-gone-{left}.12345678"
    leftover.mkdir(parents=True)
    own_service.start()
    assert not leftover.exists()
    assert own_service.states() == {"anna": "absent"}
    own_service.stop()
    away.rename(elsewhere)
    own_service.start()
    with own_service.acquire("anna"):
        assert own_service.state("anna") == "active"
    own_service.wait_for("anna", "inactive")


def test_hash_that_takes_for_ever_does_not_take_a_processor_for_ever(service: Service) -> None:
    """Owners may change their own hashes: one that is checked first lets the update pass."""
    expensive = "$6$rounds=999999999$" + people.hashed().split("$", 2)[2]
    service.create("emil")
    hashes = {"hashedPassword": [people.hashed(), expensive]}
    service.call("UpdateHome", "s", people.text(people.record("emil", privileged=hashes)))
    began = time.monotonic()
    guess = service.begin("AcquireHome", "ssb", "emil", secret(WRONG_PASSWORD), False)
    with pytest.raises(BusError, match=r"ended by its time limit.* 3 s of processor time"):
        guess.result()
    assert time.monotonic() - began < 20
    with service.acquire("emil"):
        assert service.state("emil") == "active"
    service.wait_for("emil", "inactive")


def changed(service: Service, name: str, **fields: Json) -> str:
    """An update of the present record."""
    record = service.user_record(name)
    for section in ("binding", "status", "signature"):
        record.pop(section, None)
    more = {"lastChangeUSec": time.time_ns() // 1000, "secret": {"password": [PASSWORD]}}
    return people.text({**record, **more, **fields})


@pytest.fixture
def authority(own_service: Service) -> Iterator[Authority]:
    """A polkit that grants nothing yet."""
    with Authority().on(own_service.site.bus_address) as running:
        yield running


@pytest.fixture
def owner(own_service: Service) -> Iterator[Stranger]:
    """The owner of a home."""
    own_service.create("fritz", uid=60111, memberOf=["wheel"])
    with stranger(60111, own_service.site.bus_address) as client:
        yield client


def test_owner_brings_nothing_back_that_was_taken_while_polkit_asked(
    own_service: Service, owner: Stranger, authority: Authority
) -> None:
    stamp = time.time_ns() // 1000 + 30_000_000
    late = changed(own_service, "fritz", lastChangeUSec=stamp)
    with ThreadPoolExecutor() as pool:
        update = pool.submit(owner.call, "UpdateHome", "s", late, interactive=True)
        assert authority.asked.wait(5)
        own_service.call("UpdateHome", "s", changed(own_service, "fritz", memberOf=[]))
        authority.granting.set()
        with pytest.raises(BusError, match="administrator"):
            update.result()
    assert "wheel" not in str(own_service.user_record("fritz"))


def test_owner_stamps_no_record_that_nobody_can_replace(
    own_service: Service, owner: Stranger, authority: Authority
) -> None:
    authority.granting.set()
    for stamp in (2**64 - 1, time.time_ns() // 1000 + 3600_000_000):
        update = changed(own_service, "fritz", location="here", lastChangeUSec=stamp)
        with pytest.raises(BusError, match="present time"):
            owner.call("UpdateHome", "s", update)
    owner.call("UpdateHome", "s", changed(own_service, "fritz", location="here"))
    own_service.call("UpdateHome", "s", changed(own_service, "fritz", memberOf=[]))


def test_open_session_is_not_enough_for_another_password(
    own_service: Service, owner: Stranger, authority: Authority
) -> None:
    """An update of the host copy alone asks for no credentials."""
    authority.granting.set()
    offline = ("UpdateHomeEx", "sa{sh}t")
    owner.call(*offline, changed(own_service, "fritz", location="here"), {}, 1)
    hashes: JsonObject = {"hashedPassword": [people.hashed(OTHER_PASSWORD)]}
    owner.call(*offline, changed(own_service, "fritz", privileged=hashes), {}, 1)
    assert authority.actions == ["update-home-by-owner", "update-home"]


def test_owner_adds_no_blob_that_is_not_his(
    own_service: Service, owner: Stranger, authority: Authority
) -> None:
    """The manifest of what comes with an update is made after the question."""
    authority.granting.set()
    update = ("UpdateHomeEx", "sa{sh}t", changed(own_service, "fritz"))
    with pytest.raises(BusError, match="administrator"):
        owner.call(*update, {"system-picture": "/etc/passwd"}, 0)
    owner.call(*update, {"avatar": "/etc/passwd"}, 0)


def test_alias_that_repeats_the_name_with_its_realm_breaks_nothing(own_service: Service) -> None:
    own_service.create("gina", realm="example.com", aliases=["gina@example.com", "gigi"])
    own_service.activate("gina")
    own_service.restart()
    own_service.deactivate("gina")
    assert own_service.state("gigi@example.com") == "inactive"


def test_alias_is_no_account_of_the_machine(service: Service) -> None:
    kurt = people.text(people.record("kurt", aliases=["daemon"]))
    assert service.error("CreateHome", "s", kurt) == "UserNameExists"
    assert "kurt" not in service.states()
    service.create("kurt")
    update = changed(service, "kurt", aliases=["daemon"])
    assert service.error("UpdateHome", "s", update) == "UserNameExists"


def test_home_found_on_disk_has_the_login_limit_too(own_service: Service) -> None:
    own_service.site.plant("hans")
    own_service.wait_for("hans", "unfixated")
    guesses = [
        own_service.begin("AcquireHome", "ssb", "hans", secret(WRONG_PASSWORD), False)
        for _ in range(31)
    ]
    assert Counter(guess.failure() for guess in guesses) == {
        "BadPassword": 30,
        "AuthenticationLimitHit": 1,
    }
    assert own_service.state("hans") == "unfixated"


def test_home_that_is_made_again_keeps_its_public_files(service: Service) -> None:
    service.create("jost")
    picture = service.site.blobs / "jost" / "avatar"
    picture.write_bytes(b"png")
    shutil.rmtree(service.site.base / "jost.homedir")
    service.wait_for("jost", "absent")
    service.call("RealizeHome", "ss", "jost", secret(PASSWORD))
    assert picture.read_bytes() == b"png"


def test_blob_that_is_never_read_to_its_end_keeps_nobody_waiting(own_service: Service) -> None:
    """As of a file system whose server, the client itself, does not answer."""
    service = own_service
    service.create("ida")
    with (
        Fd.open("/proc/kmsg", os.O_RDONLY) as endless,
        service.new_client() as client,
        ThreadPoolExecutor() as pool,
    ):
        target = (NAME, MANAGER_PATH, MANAGER, "UpdateHomeEx", "sa{sh}t")
        arguments = (changed(service, "ida"), {"avatar": endless}, 0)
        update = pool.submit(client.call, *target, arguments, timeout_s=60)
        time.sleep(0.3)
        with service.acquire("ida"):
            assert not update.done()
        with pytest.raises(BusError, match="avatar could not be read"):
            update.result()
    service.wait_for("ida", "inactive")


def test_pam_is_not_answered_so_that_it_asks_again_and_again(service: Service) -> None:
    service.create("wilma", rateLimitBurst=100)

    def acquire(given: str, *, interactive: bool = False) -> str:
        call = (NAME, MANAGER_PATH, MANAGER, "AcquireHome", "ssb", ("wilma", given, False))
        try:
            for fd in service.client.call(*call, interactive=interactive).fds:
                fd.close()
        except BusError as error:
            return error.name.rpartition(".")[2]
        return ""

    wrong = secret(WRONG_PASSWORD)
    # As the module does it: first with nothing, then with what was typed; and as it begins
    # where another module has asked before.
    for first in ("{}", wrong):
        assert [acquire(first), acquire(wrong)] == ["BadPassword", "AuthenticationFailed"]
    # Who unlocks it has no more to do with what was before, and who can ask people is no PAM.
    assert [acquire("{}"), acquire(secret(PASSWORD))] == ["BadPassword", ""]
    assert [acquire(wrong), acquire(wrong, interactive=True)] == ["BadPassword"] * 2
    service.wait_for("wilma", "inactive")
