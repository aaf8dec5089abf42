"""The defects of systemd-homed 262 that this service shall not have, by their number."""

from __future__ import annotations

import json
import os
import time

import pytest

from homemgr.record.jsontext import JsonObject
from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.bus import STRANGERS
from tests.service.holders import sitting_in, stranger
from tests.service.people import PASSWORD, secret
from tests.service.site import Service

#: Shown by `homectl recovery-key`, in the spelling that is hashed.
RECOVERY_KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)


def update(service: Service, name: str, **fields: object) -> None:
    """Change members of the current record, as homectl does."""
    record = service.user_record(name)
    for section in ("binding", "status", "signature"):
        record.pop(section, None)
    new: dict[str, object] = {**record, "lastChangeUSec": time.time_ns() // 1000, **fields}
    new["secret"] = {"password": [PASSWORD]}
    service.call("UpdateHome", "s", json.dumps(new))


def found(service: Service, name: str) -> None:
    service.wait_for(name, "unfixated")


def test_defect_1_activation_of_a_lingering_home_answers_at_once(service: Service) -> None:
    service.create("anna")
    service.activate("anna")
    with sitting_in(service.path_of("anna")):
        assert service.error("DeactivateHome", "s", "anna") == "HomeBusy"
        service.wait_for("anna", "lingering")
        assert service.begin("ActivateHome", "ss", "anna", secret(PASSWORD)).failure(2.0) == ""
        assert service.state("anna") == "active"
    # The retry is off, and the next operation finds a service that is alive.
    time.sleep(1.0)
    assert service.state("anna") == "active"
    service.deactivate("anna")


def test_defect_2_arrays_of_unsorted_objects_keep_their_order_and_signature(
    own_service: Service,
) -> None:
    items = [{"z": number, "a": {"y": 1, "b": [number]}} for number in range(9, 0, -1)]
    own_service.create("bert", **{"org.example.list": items})
    own_service.restart()
    assert own_service.state("bert") == "inactive"
    assert own_service.user_record("bert")["org.example.list"] == items
    own_service.activate("bert")
    own_service.deactivate("bert")


def test_defect_4_authentication_of_an_unfixated_home_changes_nothing(service: Service) -> None:
    service.site.plant("cleo")
    found(service, "cleo")
    service.call("AuthenticateHome", "ss", "cleo", secret(PASSWORD))
    assert service.state("cleo") == "unfixated"
    assert not (service.site.records / "cleo.identity").exists()
    service.activate("cleo")
    service.deactivate("cleo")


def test_defect_5_home_with_a_bad_signature_is_never_mounted(service: Service) -> None:
    stranger_key = PrivateKey.generate()
    unsigned = UserRecord(people.record("dirk", secret=None))
    texts = {
        "dirk": sign(unsigned, stranger_key).embedded().pretty(),
        "dora": UserRecord(people.record("dora", secret=None)).pretty(),
    }
    for name, text in texts.items():
        service.site.plant_text(name, text)
        found(service, name)
        for call in (("ActivateHome", "ss"), ("AcquireHome", "ssb", False)):
            member, signature, *more = call
            assert service.error(member, signature, name, secret(PASSWORD), *more) == "BadSignature"
            assert service.state(name) == "unfixated"
        assert not os.path.ismount(service.path_of(name))


def test_defect_5_record_that_was_changed_by_its_user_is_never_used(service: Service) -> None:
    service.create("emil")
    identity = service.site.base / "emil.homedir" / ".identity"
    before = identity.read_bytes()
    forged = json.loads(before)
    forged |= {"memberOf": ["sudo"], "lastChangeUSec": forged["lastChangeUSec"] + 1}
    identity.write_text(json.dumps(forged))
    service.activate("emil")
    assert "memberOf" not in service.user_record("emil")
    assert identity.read_bytes() == before
    service.deactivate("emil")


def test_defect_6_recovery_key_unlocks_in_every_spelling(service: Service) -> None:
    recovery = [{"type": "modhex64", "hashedPassword": people.hashed(RECOVERY_KEY)}]
    privileged = {"hashedPassword": [people.hashed()], "recoveryKey": recovery}
    service.create("falk", privileged=privileged, secret={"password": [PASSWORD, RECOVERY_KEY]})
    for spelling in (RECOVERY_KEY, RECOVERY_KEY.upper(), RECOVERY_KEY.replace("-", "")):
        service.call("AuthenticateHome", "ss", "falk", secret(spelling))
        service.activate("falk", spelling)
        service.deactivate("falk")


def test_defect_7_home_with_the_last_uid_of_the_range_is_mapped(service: Service) -> None:
    for name, policy in (("gerd", None), ("gitta", "homed")):
        service.create(name, uid=60513, **{"org.homemgr.idmapPolicy": policy})
        service.activate(name)
        assert (service.path_of(name) / ".identity").stat().st_uid == 60513
        assert (service.site.base / f"{name}.homedir/.identity").stat().st_uid == 65534
        service.deactivate(name)
        service.call("RemoveHome", "s", name)


def test_defect_8_update_of_a_home_whose_own_record_is_newer_is_a_conflict(
    service: Service,
) -> None:
    service.create("hugo", lastChangeUSec=1_000_000)
    newer: JsonObject = {
        **people.record("hugo", secret=None, realName="From Elsewhere", lastChangeUSec=9_000_000),
        "org.homemgr.idmapPolicy": "strict",
    }
    identity = service.site.base / "hugo.homedir" / ".identity"
    identity.write_bytes(service.site.signed(newer).embedded().pretty())
    before = service.site.digest()
    between = people.text(people.record("hugo", realName="Mine", lastChangeUSec=5_000_000))
    assert service.error("UpdateHome", "s", between) == "RecordDowngrade"
    assert service.site.digest() == before
    assert service.call("GetHomeByName", "s", "hugo")[3] == "hugo"
    # The newer record wins as soon as the home is used.
    service.activate("hugo")
    service.deactivate("hugo")
    assert service.call("GetHomeByName", "s", "hugo")[3] == "From Elsewhere"


def test_defect_9_aliases_are_changed_in_both_copies_and_answer_at_once(
    own_service: Service,
) -> None:
    own_service.create("ilse", aliases=["il"])
    assert own_service.call("GetHomeByName", "s", "il")[-1] == ("/org/freedesktop/home1/home/ilse")
    update(own_service, "ilse", aliases=["ilschen", "ise"])
    assert own_service.error("GetHomeByName", "s", "il") == "NoSuchHome"
    own_service.restart()
    for alias in ("ilschen", "ise"):
        assert own_service.state(alias) == "inactive"
        own_service.activate(alias)
        own_service.deactivate(alias)
    assert own_service.error("GetHomeByName", "s", "il") == "NoSuchHome"
    site = own_service.site
    for copy in (site.records / "ilse.identity", site.base / "ilse.homedir" / ".identity"):
        assert "ilschen" in copy.read_text()


def test_defect_10_adoption_reaches_the_service_for_everybody(service: Service) -> None:
    with (
        stranger(STRANGERS[0], service.site.bus_address) as client,
        pytest.raises(BusError) as caught,
    ):
        client.call("AdoptHome", "st", "/nowhere/x.homedir", 0)
    # The service itself answers; the bus would have named its policy.
    assert caught.value.message.startswith("AdoptHome needs the authorization")


def test_defect_11_images_with_a_realm_are_found_as_they_appear(service: Service) -> None:
    service.site.plant("jutta", file_name="jutta@example.com.homedir", realm="example.com")
    found(service, "jutta")
    service.activate("jutta@example.com")
    assert service.state("jutta") == "active"
    service.deactivate("jutta")


def test_defect_12_image_that_was_not_ready_is_assessed_again(service: Service) -> None:
    # Made under its final name, empty, as `cp -a` would.
    path = service.site.base / "klaus.homedir"
    path.mkdir(0o700)
    os.chown(path, 65534, 65534)
    found(service, "klaus")
    assert service.error("ActivateHome", "ss", "klaus", secret(PASSWORD)) != ""
    assert service.state("klaus") == "unfixated"
    record = service.site.signed(people.record("klaus", secret=None))
    (path / ".identity").write_bytes(record.embedded().pretty())
    os.chown(path / ".identity", 65534, 65534)
    service.activate("klaus")
    service.deactivate("klaus")


def test_defect_12_home_is_created_under_a_hidden_name(service: Service) -> None:
    with service.paused():
        creating = service.begin("CreateHome", "s", people.text(people.record("lotte")))
        service.wait_for("lotte", "creating")
        assert not (service.site.base / "lotte.homedir").exists()
    creating.result()
    names = os.listdir(service.site.base)
    assert "lotte.homedir" in names
    assert not [name for name in names if name.startswith(".#homemgr")]


def test_where_no_watch_is_left_homes_are_used_and_found_at_the_start(
    own_service: Service,
) -> None:
    own_service.create("wanda")
    own_service.stop()
    lacking = ["-e", "trace=inotify_init1", "-e", "inject=inotify_init1:error=EMFILE"]
    # The tracer is not the parent: what is started is the daemon.
    own_service.start("strace", "-D", "-o", "/dev/null", *lacking)
    assert "Cannot watch for homes: Too many open files" in own_service.site.log.read_text()
    own_service.activate("wanda")
    own_service.deactivate("wanda")
    own_service.site.plant("willi")
    own_service.restart()
    assert own_service.states() == {"wanda": "inactive", "willi": "unfixated"}
