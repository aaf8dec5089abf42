"""What operations do where they are admitted: every file of the home says it happened."""

from __future__ import annotations

import stat

from tests.service import people
from tests.service.holders import write_as
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import NAME, Service, short, wait_until

AS_RECORDED = (1 << 64) - 1


def bad_attempts(service: Service, name: str) -> object:
    status = service.user_record(name)["status"]
    assert isinstance(status, dict)
    (here,) = status.values()
    assert isinstance(here, dict)
    return here.get("badAuthenticationCounter", 0)


def test_a_home_is_created_used_and_removed_without_a_trace(service: Service) -> None:
    before = service.site.digest()
    service.create("anna", realName="Anna Example")
    assert service.state("anna") == "inactive"
    service.activate("anna")
    uid = service.call("GetHomeByName", "s", "anna")[0]
    write_as(uid, service.path_of("anna") / "note", "mine")
    assert (service.path_of("anna") / "note").stat().st_uid == uid
    assert (service.site.base / "anna.homedir" / "note").stat().st_uid == 65534
    service.deactivate("anna")
    assert list(service.path_of("anna").iterdir()) == []
    service.call("RemoveHome", "s", "anna")
    after = service.site.digest()
    assert set(after) - set(before) <= {
        str(service.site.base),
        str(service.site.records / "local.private"),
        str(service.site.records / "local.public"),
    }


def test_files_and_modes_are_those_of_systemd_homed(service: Service) -> None:
    service.create("bob")
    image, record = service.site.base / "bob.homedir", service.site.records / "bob.identity"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE((image / ".identity").stat().st_mode) == 0o600
    assert (image / ".identity").stat().st_uid == 65534
    assert stat.S_IMODE(service.site.base.stat().st_mode) == 0o700
    assert (service.site.blobs / "bob").is_dir()
    assert '"secret"' not in record.read_text()


def test_update_reaches_both_copies_of_the_record(service: Service) -> None:
    service.create("carl")
    service.call("UpdateHome", "s", people.text(people.record("carl", realName="Carl Neu")))
    assert service.call("GetHomeByName", "s", "carl")[3] == "Carl Neu"
    for copy in (
        service.site.records / "carl.identity",
        service.site.base / "carl.homedir/.identity",
    ):
        assert "Carl Neu" in copy.read_text()


def test_update_that_says_nothing_of_the_id_mapping_keeps_it_strict(service: Service) -> None:
    service.create("cora")
    assert service.user_record("cora")["org.homemgr.idmapPolicy"] == "strict"
    service.call("UpdateHome", "s", people.text(people.record("cora")))
    assert service.user_record("cora")["org.homemgr.idmapPolicy"] == "strict"


def test_update_and_password_change_work_while_active(service: Service) -> None:
    service.create("dora")
    service.activate("dora")
    service.call_home("dora", "Update", "s", people.text(people.record("dora", location="here")))
    service.call_home("dora", "ChangePassword", "ss", secret(OTHER_PASSWORD), secret(PASSWORD))
    service.call_home("dora", "Authenticate", "s", secret(OTHER_PASSWORD))
    assert service.state("dora") == "active"
    service.deactivate("dora")
    service.activate("dora", OTHER_PASSWORD)
    assert service.user_record("dora")["location"] == "here"
    service.deactivate("dora")


def test_old_password_is_refused_after_a_change(service: Service) -> None:
    service.create("emil")
    service.call("ChangePasswordHome", "sss", "emil", secret(OTHER_PASSWORD), secret(PASSWORD))
    assert service.error("AuthenticateHome", "ss", "emil", secret(PASSWORD)) == "BadPassword"
    service.call("AuthenticateHome", "ss", "emil", secret(OTHER_PASSWORD))


def test_empty_secret_is_answered_at_once(service: Service) -> None:
    service.create("fritz")
    for member in ("ActivateHome", "AuthenticateHome"):
        pending = service.begin(member, "ss", "fritz", "{}")
        assert pending.failure(within_s=1.0) == "BadPassword"
    assert service.begin("AcquireHome", "ssb", "fritz", "{}", False).failure(1.0) == "BadPassword"


def test_wrong_password_delays_its_own_caller_only(service: Service) -> None:
    service.create("greta")
    wrong = service.begin("AuthenticateHome", "ss", "greta", secret(people.WRONG_PASSWORD))
    wait_until(lambda: bad_attempts(service, "greta") == 1, "the attempt to be counted")
    service.call("AuthenticateHome", "ss", "greta", secret(PASSWORD))
    assert wrong.is_alive()
    assert wrong.failure() == "BadPassword"


def test_weak_password_is_refused_at_creation_and_change(service: Service) -> None:
    weak = people.record("hans", privileged={"hashedPassword": [people.hashed("hans")]})
    weak["secret"] = {"password": ["hans"]}
    assert service.error("CreateHome", "s", people.text(weak)) == "LowPasswordQuality"
    assert service.error("GetHomeByName", "s", "hans") == "NoSuchHome"
    service.create("hans")
    change = ("ChangePasswordHome", "sss", "hans", secret("hans"), secret(PASSWORD))
    assert service.error(*change) == "LowPasswordQuality"


def test_create_checks_the_password_against_the_hash(service: Service) -> None:
    record = people.record("ida", secret={"password": [people.WRONG_PASSWORD]})
    before = service.site.digest()
    assert service.error("CreateHome", "s", people.text(record)) == "BadPassword"
    record = people.record("ida", secret=None)
    assert service.error("CreateHome", "s", people.text(record)) == "BadPassword"
    assert service.site.digest() == before
    assert service.error("GetHomeByName", "s", "ida") == "NoSuchHome"


def test_create_without_a_hash_is_refused(service: Service) -> None:
    record = people.record("jan", privileged=None)
    failure = service.failure("CreateHome", "s", people.text(record))
    assert failure.name.endswith("InvalidArgs")
    assert failure.message.startswith(".privileged.hashedPassword: ")


def test_removed_home_is_unknown_and_its_name_free(service: Service) -> None:
    service.create("kurt")
    service.call("RemoveHome", "s", "kurt")
    assert service.error("GetHomeByName", "s", "kurt") == "NoSuchHome"
    service.create("kurt")


def test_home_found_on_disk_is_fixated_by_its_first_activation(service: Service) -> None:
    service.site.plant("lena", realName="Lena Found")
    wait_until(lambda: service.states().get("lena") == "unfixated", "lena to be found")
    assert not (service.site.records / "lena.identity").exists()
    service.activate("lena")
    assert (service.path_of("lena") / "note").read_text() == "of lena\n"
    assert service.call("GetHomeByName", "s", "lena")[3] == "Lena Found"
    service.deactivate("lena")
    assert service.state("lena") == "inactive"
    assert (service.site.records / "lena.identity").exists()


def test_fixate_takes_the_record_and_mounts_nothing(service: Service) -> None:
    service.site.plant("max")
    wait_until(lambda: service.states().get("max") == "unfixated", "max to be found")
    service.call("FixateHome", "ss", "max", secret(PASSWORD))
    assert service.state("max") == "inactive"


def test_unfixated_home_with_a_wrong_password_stays_unfixated(service: Service) -> None:
    service.site.plant("nora")
    wait_until(lambda: service.states().get("nora") == "unfixated", "nora to be found")
    assert service.error("ActivateHome", "ss", "nora", secret("wrong one")) == "BadPassword"
    assert service.state("nora") == "unfixated"
    assert not (service.site.records / "nora.identity").exists()


def test_unfixated_home_is_removed_without_a_password(service: Service) -> None:
    path = service.site.plant("otto")
    wait_until(lambda: service.states().get("otto") == "unfixated", "otto to be found")
    service.call("RemoveHome", "s", "otto")
    assert not path.exists()
    assert service.error("GetHomeByName", "s", "otto") == "NoSuchHome"


def test_absent_home_comes_back_with_its_files(service: Service) -> None:
    service.create("paul")
    image = service.site.base / "paul.homedir"
    image.rename(service.site.base / ".away")
    service.wait_for("paul", "absent")
    assert service.error("ActivateHome", "ss", "paul", secret(PASSWORD)) == "HomeAbsent"
    (service.site.base / ".away").rename(image)
    service.wait_for("paul", "inactive")
    service.activate("paul")
    service.deactivate("paul")


def test_absent_home_is_updated_offline_realized_and_removed(service: Service) -> None:
    service.create("rosa")
    (service.site.base / "rosa.homedir").rename(service.site.base / ".rosa-away")
    service.wait_for("rosa", "absent")
    record = people.record("rosa", realName="Rosa Fort", secret=None)
    service.call("UpdateHomeEx", "sa{sh}t", people.text(record), {}, 1)
    assert service.call("GetHomeByName", "s", "rosa")[3] == "Rosa Fort"
    service.call("RealizeHome", "ss", "rosa", secret(PASSWORD))
    assert service.state("rosa") == "inactive"
    service.activate("rosa")
    service.deactivate("rosa")
    (service.site.base / "rosa.homedir").rename(service.site.base / ".rosa-again")
    service.wait_for("rosa", "absent")
    service.call("RemoveHome", "s", "rosa")
    assert service.error("GetHomeByName", "s", "rosa") == "NoSuchHome"


def test_offline_update_is_written_through_by_the_next_activation(service: Service) -> None:
    service.create("sven")
    record = people.record("sven", realName="Sven Later", secret=None)
    service.call("UpdateHomeEx", "sa{sh}t", people.text(record), {}, 1)
    identity = service.site.base / "sven.homedir/.identity"
    assert "Sven Later" not in identity.read_text()
    service.activate("sven")
    service.deactivate("sven")
    assert "Sven Later" in identity.read_text()


def test_rate_limit_answers_with_the_time_to_wait(service: Service) -> None:
    service.create("tina", rateLimitBurst=3)
    for _ in range(3):
        service.call("AuthenticateHome", "ss", "tina", secret(PASSWORD))
    failure = service.failure("AuthenticateHome", "ss", "tina", secret(PASSWORD))
    assert failure.name == f"{NAME}.AuthenticationLimitHit"
    assert "second" in failure.message


def test_rate_limit_outlives_the_service(own_service: Service) -> None:
    own_service.create("till", rateLimitBurst=2)
    wrong = secret(people.WRONG_PASSWORD)
    assert own_service.error("AuthenticateHome", "ss", "till", wrong) == "BadPassword"
    own_service.restart()
    # With nothing in hand nothing is guessed.
    assert own_service.error("AuthenticateHome", "ss", "till", "{}") == "BadPassword"
    own_service.call("AuthenticateHome", "ss", "till", secret(PASSWORD))
    own_service.restart()
    status = own_service.user_record("till")["status"]
    assert isinstance(status, dict)
    (counters,) = status.values()
    assert isinstance(counters, dict)
    names = ("rateLimitCount", "badAuthenticationCounter", "goodAuthenticationCounter")
    assert [counters[name] for name in names] == [2, 1, 1]
    for member in ("AuthenticateHome", "ActivateHome"):
        right = (member, "ss", "till", secret(PASSWORD))
        assert own_service.error(*right) == "AuthenticationLimitHit"
    change = ("till", secret(people.OTHER_PASSWORD), secret(PASSWORD))
    assert own_service.error("ChangePasswordHome", "sss", *change) == "AuthenticationLimitHit"


def test_deactivate_all_ends_every_use(service: Service) -> None:
    for name in ("udo", "vera"):
        service.create(name)
        service.activate(name)
    held = service.acquire("udo")
    service.call("DeactivateAllHomes")
    held.close()
    assert {service.state("udo"), service.state("vera")} == {"inactive"}


def test_locking_is_refused_with_what_the_storage_lacks(service: Service) -> None:
    service.create("willi")
    service.activate("willi")
    for failure in (
        service.failure("LockHome", "s", "willi"),
        service.failure_of_home("willi", "Lock"),
    ):
        assert short(failure.name) == "NotSupported"
        assert "willi" in failure.message
        assert "storage directory has no key" in failure.message
    assert service.state("willi") == "active"
    service.deactivate("willi")


def test_unlocking_what_is_never_locked_is_refused(service: Service) -> None:
    service.create("wanda")
    assert service.error("UnlockHome", "ss", "wanda", secret(PASSWORD)) == "HomeNotLocked"
    assert service.error("UnlockHome", "ss", "wanda", "no json") == "InvalidArgs"
    assert short(service.failure_of_home("wanda", "Unlock", "s", "{}").name) == "HomeNotLocked"


def test_locking_all_succeeds_and_says_in_the_log_what_stays_readable(service: Service) -> None:
    readers = ("xaver", "xenia", "xerxes")
    for name in readers:
        service.create(name)
    service.call("LockAllHomes")
    may = service.acquire("xaver", please_suspend=True)
    must_not = service.acquire("xenia")
    both = [service.acquire("xerxes", please_suspend=True), service.ref("xerxes")]
    with may, must_not, both[0], both[1]:
        service.call("LockAllHomes")
        assert {service.state(name) for name in readers} == {"active"}
    told = [line for line in service.site.log.read_text().splitlines() if "stays readable" in line]
    assert len(told) == 1
    assert "xaver" in told[0]
