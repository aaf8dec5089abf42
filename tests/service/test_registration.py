"""Homes become known and unknown while their files stay; the binding follows the data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from tests.service import people
from tests.service.site import Service


def host_record(service: Service, name: str) -> UserRecord:
    return UserRecord.parse((service.site.records / f"{name}.identity").read_bytes())


def binding(service: Service, name: str) -> dict[str, object]:
    (entry,) = host_record(service, name).section("binding").values()
    assert isinstance(entry, dict)
    return dict(entry)


def elsewhere(service: Service, directory: str) -> Path:
    """A safe place that is not looked at for homes."""
    place = service.site.home_root.parent / f"{service.site.home_root.name}-{directory}"
    place.mkdir(0o700)
    return place


def test_a_record_is_registered_before_its_files_exist_and_realized(own_service: Service) -> None:
    own_service.call("RegisterHome", "s", people.text(people.record("rosa", uid=60200)))
    assert own_service.state("rosa") == "absent"
    assert own_service.user_record("rosa")["uid"] == 60200
    assert "secret" not in host_record(own_service, "rosa").data
    own_service.restart()
    assert own_service.state("rosa") == "absent"
    own_service.call("RealizeHome", "ss", "rosa", people.secret(people.PASSWORD))
    own_service.activate("rosa")
    own_service.deactivate("rosa")


def test_register_finds_the_files_where_homes_lie(own_service: Service) -> None:
    own_service.create("rolf")
    record = host_record(own_service, "rolf")
    own_service.stop()
    (own_service.site.records / "rolf.identity").unlink()
    image = own_service.site.base / "rolf.homedir"
    hidden = image.rename(own_service.site.base / "hidden")
    own_service.start()
    hidden_again = hidden.rename(image)
    # As it lay on another machine: sections of that one are left out.
    other = {**record.data, "binding": {"0" * 31 + "1": {"uid": 1000}}}
    own_service.call("RegisterHome", "s", json.dumps(other))
    assert binding(own_service, "rolf")["imagePath"] == str(hidden_again)
    own_service.activate("rolf")


def test_a_registered_user_gets_the_files_that_are_put_in_place_later(service: Service) -> None:
    service.call("RegisterHome", "s", people.text(people.record("ruth", lastChangeUSec=1)))
    assert service.state("ruth") == "absent"
    image = service.site.plant("ruth")
    service.wait_for("ruth", "inactive")
    assert binding(service, "ruth")["imagePath"] == str(image)
    service.activate("ruth")
    service.deactivate("ruth")


def test_unregister_keeps_the_files_and_they_show_again(service: Service) -> None:
    service.create("uwe")
    service.activate("uwe")
    assert service.error("UnregisterHome", "s", "uwe") == "HomeBusy"
    service.deactivate("uwe")
    service.call_home("uwe", "Unregister")
    assert service.state("uwe") == "unfixated"
    assert service.error("UnregisterHome", "s", "uwe") == "HomeUnfixated"
    assert not (service.site.records / "uwe.identity").exists()
    service.activate("uwe")
    assert service.state("uwe") == "active"
    service.deactivate("uwe")


def test_a_home_anywhere_is_adopted_and_used(own_service: Service) -> None:
    place = elsewhere(own_service, "medium")
    planted = own_service.site.plant("otto").rename(place / "otto.homedir")
    own_service.call("AdoptHome", "st", str(planted), 0)
    assert own_service.state("otto") == "unfixated"
    own_service.activate("otto")
    # homectl reads it before every update and ends if it is not there.
    (binding,) = own_service.user_record("otto")["binding"].values()  # type: ignore[union-attr]
    assert os.listdir(binding["blobDirectory"]) == []  # type: ignore[call-overload,index]
    assert (own_service.path_of("otto") / "note").read_text() == "of otto\n"
    own_service.deactivate("otto")
    own_service.restart()
    assert own_service.state("otto") == "inactive"


def test_the_binding_follows_a_home_that_was_moved(own_service: Service) -> None:
    own_service.create("mona")
    uid = own_service.call("GetHomeByName", "s", "mona")[0]
    place = elsewhere(own_service, "new-disk")
    path = own_service.site.records / "mona.identity"
    old = host_record(own_service, "mona")
    machine_id = next(iter(old.section("binding")))
    own_service.stop()
    path.write_bytes(old.with_binding(machine_id, {"fileSystemUuid": "0-0"}).pretty())
    own_service.start()
    image = own_service.site.base / "mona.homedir"
    copy = Path(shutil.copytree(image, place / "mona.homedir"))
    assert own_service.error("AdoptHome", "st", str(copy), 0) == "HomeExists"
    shutil.rmtree(copy)
    moved = image.rename(copy)
    own_service.call("AdoptHome", "st", str(moved), 0)
    bound = binding(own_service, "mona")
    assert bound["imagePath"] == str(moved)
    assert "fileSystemUuid" not in bound
    assert own_service.call("GetHomeByName", "s", "mona")[0] == uid
    own_service.activate("mona")
    own_service.deactivate("mona")


def test_a_home_signed_by_a_stranger_is_refused_with_the_way_to_accept_it(
    own_service: Service,
) -> None:
    stranger = PrivateKey.generate()
    record = sign(UserRecord(people.record("tina", secret=None)), stranger)
    own_service.site.plant_text("tina", record.embedded().pretty())
    own_service.wait_for("tina", "unfixated")
    refused = own_service.failure("ActivateHome", "ss", "tina", people.secret(people.PASSWORD))
    assert refused.name.endswith(".BadSignature")
    assert f"homemgr origins trust {stranger.public.fingerprint}" in refused.message


def test_what_is_no_home_is_not_adopted(service: Service) -> None:
    place = elsewhere(service, "odd")
    (place / "file.homedir").write_text("")
    (place / "plain").mkdir()
    wrong = {"file.homedir": "UnrecognizedHomeFormat", "plain": "UnrecognizedHomeFormat"}
    for name, expected in wrong.items():
        assert service.error("AdoptHome", "st", str(place / name), 0) == expected
    assert service.error("AdoptHome", "st", str(place / "x.homedir"), 0) == "FileNotFound"
    assert service.error("AdoptHome", "st", "x.homedir", 0) == "InvalidArgs"
    assert service.error("AdoptHome", "st", "/x.homedir", 1) == "InvalidArgs"
    (place / "root.homedir").mkdir()
    assert service.error("AdoptHome", "st", str(place / "root.homedir"), 0) == "UserNameExists"


def test_a_known_name_is_not_registered_again(service: Service) -> None:
    service.create("nina")
    assert service.error("RegisterHome", "s", people.text(people.record("nina"))) == (
        "UserNameExists"
    )
    assert service.state("nina") == "inactive"
