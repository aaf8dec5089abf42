"""org.freedesktop.LogControl1: how much is logged can be changed while the service runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homemgr.wire.codec import Variant
from homemgr.wire.messages import BusError
from tests.service.holders import stranger
from tests.service.introspection import document
from tests.service.site import NAME, Service, short
from tests.service.userdb import UserDatabase

PATH = "/org/freedesktop/LogControl1"
LOG_CONTROL = "org.freedesktop.LogControl1"
PROPERTIES = "org.freedesktop.DBus.Properties"


def get(service: Service, name: str) -> object:
    target = (NAME, PATH, PROPERTIES, "Get")
    (value,) = service.client.call(*target, "ss", (LOG_CONTROL, name)).body
    assert isinstance(value, Variant)
    return value.value


def put(service: Service, name: str, value: str) -> str:
    """Set a property; gives the name of the error, if there is one."""
    target = (NAME, PATH, PROPERTIES, "Set")
    try:
        service.client.call(*target, "ssv", (LOG_CONTROL, name, Variant("s", value)))
    except BusError as error:
        return short(error.name)
    return ""


def level_by_varlink(service: Service) -> object:
    """The other way to ask."""
    with UserDatabase(service.site.userdb_socket) as client:
        return client.ask("io.systemd.service.GetLogLevel")["level"]


@pytest.fixture
def quiet_again(service: Service) -> Iterator[None]:
    yield
    assert put(service, "LogTarget", "auto") == ""
    assert put(service, "LogLevel", "debug") == ""


def logged(service: Service, word: str) -> int:
    return service.site.log.read_text().count(word)


@pytest.mark.usefixtures("quiet_again")
def test_level_holds_for_the_service_and_its_workers(service: Service) -> None:
    service.create("anna")
    identity = service.site.base / "anna.homedir" / ".identity"
    assert get(service, "LogLevel") == "debug"
    assert get(service, "SyslogIdentifier") == "homemgrd"
    for number, level in enumerate(("emerg", "alert", "crit", "err", "warning", "notice", "info")):
        assert put(service, "LogLevel", level) == ""
        assert get(service, "LogLevel") == level
        assert level_by_varlink(service) == number
    assert put(service, "LogLevel", "err") == ""
    before = service.site.log.read_text()
    # The service tells of an activation, the worker warns of the record in the home.
    identity.write_text("{")
    service.activate("anna")
    service.deactivate("anna")
    assert service.site.log.read_text() == before
    assert put(service, "LogLevel", "info") == ""
    identity.write_text("{")
    service.activate("anna")
    service.deactivate("anna")
    assert logged(service, "Home area anna is active") == 1
    assert logged(service, "The record in home area anna does not count") == 1


@pytest.mark.usefixtures("quiet_again")
def test_target_can_be_nothing_and_back(service: Service) -> None:
    own = get(service, "LogTarget")
    assert put(service, "LogTarget", "null") == ""
    assert get(service, "LogTarget") == "null"
    assert get(service, "LogLevel") == "debug"
    before = service.site.log.read_text()
    service.call("ListHomes")
    assert service.error("GetHomeByName", "s", "nobody-here") == "NoSuchHome"
    assert service.site.log.read_text() == before
    assert put(service, "LogTarget", "auto") == ""
    assert get(service, "LogTarget") == own


def test_what_cannot_be_is_refused_and_changes_nothing(service: Service) -> None:
    own = get(service, "LogTarget")
    assert put(service, "LogLevel", "loud") == "InvalidArgs"
    assert put(service, "LogTarget", "nowhere") == "InvalidArgs"
    assert put(service, "LogTarget", "kmsg") == "NotSupported"
    assert put(service, "SyslogIdentifier", "other") == "PropertyReadOnly"
    assert (get(service, "LogLevel"), get(service, "LogTarget")) == ("debug", own)


def test_users_may_look(service: Service) -> None:
    with stranger(60111, service.site.bus_address) as client:
        assert client.call_at((NAME, PATH, PROPERTIES, "GetAll"), "s", LOG_CONTROL)


def test_it_stands_beside_the_homes(service: Service) -> None:
    names = {node.get("name") for node in document(service, "/org/freedesktop").findall("node")}
    assert names == {"home1", "LogControl1"}
