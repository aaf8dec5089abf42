"""Names and uids belong to one home each, whatever records claim."""

from __future__ import annotations

import json
import time

from homemgr.record.jsontext import JsonObject
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.site import Service, at_once, short


def create_text(name: str, *aliases: str) -> str:
    return people.text(people.record(name, aliases=list(aliases)))


def owner_of(service: Service, name: str) -> str:
    """Whose home is found under ``name``."""
    record = people.parse(str(service.call("GetUserRecordByName", "s", name)[0]))
    return str(record["userName"])


def test_name_and_alias_of_another_home_are_refused_at_creation(service: Service) -> None:
    service.create("anna", aliases=["ann"])
    for name, alias in (("bert", "anna"), ("bert", "ann"), ("ann", "berty")):
        failure = service.failure("CreateHome", "s", create_text(name, alias))
        assert short(failure.name) == "UserNameExists"
        assert "ann" in failure.message
    assert "bert" not in service.states()
    assert owner_of(service, "ann") == "anna"
    service.create("bert", aliases=["berty"])


def test_alias_of_another_home_is_refused_in_an_update(service: Service) -> None:
    service.create("carl", aliases=["charly"])
    service.create("dora")
    for alias in ("carl", "charly"):
        assert service.error("UpdateHome", "s", create_text("dora", alias)) == "UserNameExists"
        assert owner_of(service, alias) == "carl"
    assert "aliases" not in service.user_record("dora")
    service.call("UpdateHome", "s", create_text("dora", "dorothea"))
    # What one has may stay.
    service.call("UpdateHome", "s", create_text("dora", "dorothea", "dodo"))
    assert owner_of(service, "dorothea") == "dora"


def test_of_creations_at_once_one_gets_the_alias(service: Service) -> None:
    names = [f"many{number}" for number in range(6)]
    clients = {name: service.new_client() for name in names}

    def create(name: str) -> str:
        target = ("org.freedesktop.home1", "/org/freedesktop/home1")
        method = ("org.freedesktop.home1.Manager", "CreateHome")
        with clients[name] as client:
            client.call(*target, *method, "s", (create_text(name, "same"),), timeout_s=60)
        return name

    results = at_once(lambda name=name: create(name) for name in names)  # type: ignore[misc]
    failures = [short(r.name) for r in results if isinstance(r, BusError)]
    (winner,) = (r for r in results if not isinstance(r, BusError))
    assert failures == ["UserNameExists"] * 5
    assert owner_of(service, "same") == winner


def test_alias_found_in_a_home_on_disk_stays_with_who_has_it(service: Service) -> None:
    service.create("emil", aliases=["milo"])
    service.site.plant("fritz", aliases=["emil", "milo", "fred"])
    service.wait_for("fritz", "unfixated")
    service.activate("fritz")
    assert owner_of(service, "emil") == owner_of(service, "milo") == "emil"
    assert owner_of(service, "fred") == "fritz"
    log = service.site.log.read_text()
    assert log.count("The alias milo of user fritz is a name of user emil") == 1
    service.deactivate("fritz")
    service.call("RemoveHome", "s", "emil")
    assert owner_of(service, "milo") == "fritz"


def test_two_records_with_one_uid_never_share_it(own_service: Service) -> None:
    service = own_service
    for name in ("gerd", "hugo"):
        service.create(name)
    uid = service.call("GetHomeByName", "s", "gerd")[0]
    service.stop()
    path = service.site.records / "hugo.identity"
    record: JsonObject = json.loads(path.read_text())
    for binding in record["binding"].values():  # type: ignore[union-attr]
        binding["uid"] = binding["gid"] = uid  # type: ignore[index, call-overload]
    path.write_text(json.dumps(record))
    service.start()
    assert f"Ignoring the record of user hugo: its uid {uid} is that of user gerd" in (
        service.site.log.read_text()
    )
    owners = set()
    for name in ("gerd", "hugo"):
        service.activate(name)
        seen = service.path_of(name).stat()
        assert seen.st_uid == service.call("GetHomeByName", "s", name)[0]
        owners.add(seen.st_uid)
    assert len(owners) == 2
    assert owner_of(service, "gerd") == "gerd"
    assert service.call("GetHomeByUID", "u", uid)[0] == "gerd"


def test_removed_home_does_not_come_back(service: Service) -> None:
    for number in range(5):
        service.create(f"ina{number}")
        service.activate(f"ina{number}")
        service.deactivate(f"ina{number}")
        service.call("RemoveHome", "s", f"ina{number}")
        # Counters are saved, and directories looked at, a moment later.
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            assert f"ina{number}" not in service.states()
            time.sleep(0.01)
        assert not (service.site.records / f"ina{number}.identity").exists()
