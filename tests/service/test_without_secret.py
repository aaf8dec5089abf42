"""Homes that need no secret: root gets them so from one member, nobody else, and nobody is let in.

A login asks `AcquireHome` without a password first, to hear whether one is needed: a success
would let in everybody.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.record.fields import UNASKED_ON
from homemgr.record.jsontext import Json, JsonObject
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.authority import Authority
from tests.service.holders import Stranger, stranger
from tests.service.people import PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, short

HERE = Path("/etc/machine-id").read_text(encoding="ascii").strip()
ELSEWHERE = "0123456789abcdef0123456789abcdef"
OWNER = 60112
FREE = ("location", "lastChangeUSec")


def create(service: Service, name: str, *machines: str, **more: object) -> None:
    service.create(name, **{UNASKED_ON: list(machines) or [HERE], **more})


def counters(service: Service, name: str) -> dict[str, Json]:
    status = service.user_record(name)["status"]
    assert isinstance(status, dict)
    here = status[HERE]
    assert isinstance(here, dict)
    return {key: value for key, value in here.items() if "Authentication" in key or "Limit" in key}


def test_session_gets_the_home_and_gives_it_back(service: Service) -> None:
    create(service, "anna")
    before = counters(service, "anna")
    with service.ref("anna"):
        assert service.state("anna") == "active"
        assert (service.path_of("anna") / ".identity").exists()
        with service.ref("anna"):
            pass
        assert service.state("anna") == "active"
    service.wait_for("anna", "inactive")
    assert counters(service, "anna") == before


def test_who_has_to_prove_himself_still_has_to(service: Service) -> None:
    create(service, "bert")
    for given, answer in (("{}", "BadPassword"), (secret(WRONG_PASSWORD), "BadPassword")):
        assert service.error("AcquireHome", "ssb", "bert", given, False) == answer
        assert service.error("AuthenticateHome", "ss", "bert", given) == answer
    assert service.state("bert") == "inactive"
    assert service.error("ActivateHome", "ss", "bert", secret(WRONG_PASSWORD)) == "BadPassword"
    with service.acquire("bert"):
        assert service.error("AcquireHome", "ssb", "bert", "{}", False) == "BadPassword"
    service.wait_for("bert", "inactive")


def test_root_activates_it_as_it_is_and_in_a_mode(service: Service) -> None:
    create(service, "cleo")
    service.call("ActivateHome", "ss", "cleo", "{}")
    assert service.state("cleo") == "active"
    service.deactivate("cleo")
    service.call_home("cleo", "Activate", "s", "{}")
    service.deactivate("cleo")
    target = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager", "ActivateHomeInMode")
    service.client.call(*target, "sss", ("cleo", "{}", "read-only"))
    with pytest.raises(OSError, match="Read-only"):
        (service.path_of("cleo") / "new").write_text("")
    service.deactivate("cleo")


def test_many_sessions_at_once_all_get_it(service: Service) -> None:
    create(service, "dora")
    begun = [service.begin("RefHome", "sb", "dora", False) for _ in range(8)]
    held = [one.reference() for one in begun]
    assert service.state("dora") == "active"
    for fd in held:
        fd.close()
    service.wait_for("dora", "inactive")


HOUR_USEC = 3_600_000_000
CLOSED: dict[str, JsonObject] = {
    "no policy": {UNASKED_ON: []},
    "another machine": {UNASKED_ON: [ELSEWHERE]},
    "locked": {"locked": True},
    "too early": {"notBeforeUSec": time.time_ns() // 1000 + HOUR_USEC},
    "too late": {"notAfterUSec": time.time_ns() // 1000 - HOUR_USEC},
}


@pytest.mark.parametrize("why", CLOSED)
def test_where_a_secret_is_needed_a_session_hears_that_the_home_is_not_active(
    service: Service, why: str
) -> None:
    """Never that the password is wrong: pam_systemd_home.so would abort the login program."""
    name = f"emil{list(CLOSED).index(why)}"
    create(service, name, **CLOSED[why])
    assert service.error("RefHome", "sb", name, False) == "HomeNotActive"
    assert service.error("ActivateHome", "ss", name, "{}") == "BadPassword"
    assert service.state(name) == "inactive"
    service.activate(name)
    service.ref(name).close()
    service.wait_for(name, "inactive")


def test_record_that_counts_decides(own_service: Service) -> None:
    """The home holds a newer one, by which a secret is needed again."""
    service = own_service
    create(service, "fritz")
    identity = service.site.base / "fritz.homedir" / ".identity"
    host = service.site.records / "fritz.identity"
    before = host.read_bytes()
    record = service.user_record("fritz")
    for section in ("binding", "status", "signature", UNASKED_ON):
        record.pop(section, None)
    record |= {"lastChangeUSec": time.time_ns() // 1000, "secret": {"password": [PASSWORD]}}
    service.call("UpdateHome", "s", people.text(record))
    newer = identity.read_bytes()
    service.stop()
    host.write_bytes(before)
    service.start()
    assert identity.read_bytes() == newer
    assert service.error("RefHome", "sb", "fritz", False) == "HomeNotActive"
    assert service.error("ActivateHome", "ss", "fritz", "{}") == "BadPassword"
    assert service.state("fritz") == "inactive"


def test_home_that_is_away_is_absent(service: Service) -> None:
    create(service, "gerd")
    away = service.site.base / "gerd.homedir"
    shutil.move(away, service.site.home_root / "elsewhere")
    assert service.error("RefHome", "sb", "gerd", False) == "HomeAbsent"
    shutil.move(service.site.home_root / "elsewhere", away)
    service.wait_for("gerd", "inactive")
    service.ref("gerd").close()
    service.wait_for("gerd", "inactive")


def test_what_cannot_be_activated_is_not_active_and_the_log_says_why(service: Service) -> None:
    create(service, "hans")
    blocked = service.path_of("hans")
    blocked.write_text("a file in its place")
    assert service.error("RefHome", "sb", "hans", False) == "HomeNotActive"
    assert "Home area hans is not activated without a secret" in service.site.log.read_text()
    blocked.unlink()


@pytest.fixture
def authority(own_service: Service) -> Iterator[Authority]:
    """A polkit that grants everything."""
    with Authority().on(own_service.site.bus_address) as running:
        running.granting.set()
        yield running


@pytest.fixture
def owner(own_service: Service) -> Iterator[Stranger]:
    create(own_service, "ida", uid=OWNER, selfModifiableFields=[UNASKED_ON, *FREE])
    with stranger(OWNER, own_service.site.bus_address) as client:
        yield client


@pytest.fixture
def other(own_service: Service) -> Iterator[Stranger]:
    with stranger(OWNER + 1, own_service.site.bus_address) as client:
        yield client


def refusal(client: Stranger, member: str, signature: str, *arguments: object) -> str:
    with pytest.raises(BusError) as caught:
        client.call(member, signature, *arguments)
    return short(caught.value.name)


@pytest.mark.usefixtures("authority")
def test_nobody_but_root_gets_it_even_if_polkit_grants_all(
    own_service: Service, owner: Stranger, other: Stranger
) -> None:
    for client in (owner, other):
        for name in ("ida", "")[: 1 + (client is owner)]:
            assert refusal(client, "ActivateHome", "ss", name, "{}") == "BadPassword"
            assert refusal(client, "AcquireHome", "ssb", name, "{}", False) == "BadPassword"
        assert refusal(client, "RefHome", "sb", "ida", False) == "AccessDenied"
        held = refusal(client, "ActivateHomeIfReferenced", "ss", "ida", "{}")
        assert held == "HomeNotReferenced"
        target = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager", "ActivateHomeInMode")
        with pytest.raises(BusError) as caught:
            client.call_at(target, "sss", "ida", "{}", "normal")
        assert short(caught.value.name) == "BadPassword"
    assert own_service.state("ida") == "inactive"


def test_owners_cannot_set_it_whatever_a_list_says(
    own_service: Service, owner: Stranger, authority: Authority
) -> None:
    record = own_service.user_record("ida")
    for section in ("binding", "status", "signature"):
        record.pop(section, None)
    record |= {"lastChangeUSec": time.time_ns() // 1000, "secret": {"password": [PASSWORD]}}
    owner.call("UpdateHome", "s", people.text({**record, "location": "here"}))
    record |= {"lastChangeUSec": time.time_ns() // 1000, UNASKED_ON: [HERE, ELSEWHERE]}
    owner.call("UpdateHome", "s", people.text(record))
    assert authority.actions == ["update-home-by-owner", "update-home"]
