"""What must never be lost or taken for gone: records that are not accepted, homes out of sight."""

from __future__ import annotations

from tests.service import people
from tests.service.site import Service, wait_until


def test_a_record_of_an_unknown_signer_is_neither_served_nor_overwritten(
    own_service: Service,
) -> None:
    own_service.create("alice")
    own_service.stop()
    site = own_service.site
    record = site.records / "alice.identity"
    content = record.read_bytes()
    for key in ("local.private", "local.public"):
        (site.records / key).rename(site.records / f"{key}.away")
    (site.base / "alice.homedir").rename(site.base / "elsewhere")
    own_service.start()
    assert own_service.error("GetHomeByName", "s", "alice") == "NoSuchHome"
    refused = own_service.failure("CreateHome", "s", people.text(people.record("alice")))
    assert "could not accept" in refused.message
    assert record.read_bytes() == content
    for key in ("local.private", "local.public"):
        (site.records / f"{key}.away").rename(site.records / key)
    (site.base / "elsewhere").rename(site.base / "alice.homedir")
    own_service.restart()
    own_service.activate("alice")


def test_a_record_that_was_not_accepted_is_kept_when_its_home_is_found_on_disk(
    own_service: Service,
) -> None:
    own_service.create("alice")
    own_service.stop()
    record = own_service.site.records / "alice.identity"
    damaged = record.read_bytes().replace(b'"alice"', b'"alice" ', 1)[:-40]
    record.write_bytes(damaged)
    own_service.start()
    assert own_service.state("alice") == "unfixated"
    own_service.activate("alice")
    assert own_service.state("alice") == "active"
    (kept,) = own_service.site.records.glob("alice.identity.unaccepted-*")
    assert kept.read_bytes() == damaged


def test_a_private_key_with_a_wrong_mode_is_not_replaced(own_service: Service) -> None:
    own_service.create("alice")
    own_service.stop()
    key = own_service.site.records / "local.private"
    content = key.read_bytes()
    key.chmod(0o640)
    own_service.start()
    record = people.text(people.record("bob"))
    assert own_service.error("CreateHome", "s", record) == "NoPrivateKey"
    assert key.read_bytes() == content
    own_service.activate("alice")


def test_an_image_that_goes_and_comes_back_is_absent_in_between(service: Service) -> None:
    service.create("alice")
    image = service.site.base / "alice.homedir"
    image.rename(service.site.base / "away")
    wait_until(lambda: service.state("alice") == "absent", "the home to be absent")
    (service.site.base / "away").rename(image)
    wait_until(lambda: service.state("alice") == "inactive", "the home to be back")
    service.activate("alice")
