"""Homes on a file server: made, used with the password it knows, and left there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.site import Service, short
from tests.smb import Server

MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
SETTINGS = {"storage": "cifs", "cifsUserName": "person", "rateLimitBurst": 1000}


@pytest.fixture
def running(service: Service, server: Server) -> Iterator[Service]:
    """A daemon that knows nobody afterwards."""
    yield service
    service.call("DeactivateAllHomes")
    for name in service.states():
        service.call("RemoveHome", "s", name)
    assert " cifs " not in Path("/proc/self/mounts").read_text()


def create(service: Service, name: str, **fields: object) -> None:
    service.create(
        name, **{**SETTINGS, "cifsService": f"//localhost/homes-of-all/{name}", **fields}
    )


def error_of(service: Service, name: str, word: str = people.PASSWORD) -> str:
    """Why the home cannot be activated; it is inactive afterwards."""
    try:
        service.activate(name, word)
    except BusError as refused:
        return short(refused.name)
    service.deactivate(name)
    return ""


def test_a_home_is_made_used_and_stays_on_the_server(running: Service, server: Server) -> None:
    create(running, "anna", cifsExtraMountOptions="actimeo=0")
    assert running.state("anna") == "inactive"
    assert (server.share / "anna" / ".identity").exists()
    for _ in range(2):
        running.activate("anna")
        home = running.path_of("anna")
        found = home.stat()
        assert found.st_uid == running.call("GetHomeByName", "s", "anna")[0]
        (line,) = [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if f" {home} " in line
        ]
        assert line.split()[2] == "cifs"
        assert {"nosuid", "nodev"} <= set(line.split()[3].split(","))
        assert people.PASSWORD not in line
        with filesystem_identity(found.st_uid, found.st_uid), (home / "file").open("a") as file:
            file.write("words\n")
        running.deactivate("anna")
    assert (server.share / "anna" / "file").read_text() == "words\n" * 2
    secret = people.secret(people.PASSWORD)
    assert running.error("ResizeHome", "sts", "anna", 1 << 30, secret) == "NotSupported"
    with pytest.raises(BusError, match="is on a file server"):
        running.client.call(*MANAGER, "GetHomeUsage", "st", ("anna", 0))
    record = running.user_record("anna")
    assert record["cifsService"] == "//localhost/homes-of-all/anna"
    assert record["storage"] == "cifs"
    running.call("RemoveHome", "s", "anna")
    assert (server.share / "anna" / "file").exists()


def test_both_have_to_take_the_password(running: Service, server: Server) -> None:
    create(running, "bert")
    assert error_of(running, "bert", people.WRONG_PASSWORD) == "BadPassword"
    server.set_password("person", people.OTHER_PASSWORD)
    assert error_of(running, "bert") == "BadPassword"
    assert error_of(running, "bert", people.OTHER_PASSWORD) == "BadPassword"
    server.set_password("person", people.PASSWORD)
    assert error_of(running, "bert") == ""


def test_the_server_is_not_asked_with_guesses(running: Service, server: Server) -> None:
    create(running, "hans")
    server.lock_after(1)
    try:
        for _ in range(3):
            assert error_of(running, "hans", people.WRONG_PASSWORD) == "BadPassword"
        assert error_of(running, "hans") == ""
    finally:
        server.lock_after(0)


def test_a_password_is_changed_on_the_server_first(running: Service, server: Server) -> None:
    create(running, "carl")
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    assert running.error("ChangePasswordHome", "sss", "carl", new, old) == "NotSupported"
    running.activate("carl")
    assert running.error("ChangePasswordHome", "sss", "carl", new, old) == "NotSupported"
    running.deactivate("carl")
    assert error_of(running, "carl") == ""
    server.set_password("person", people.OTHER_PASSWORD)
    both = people.secret(people.PASSWORD, people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "carl", new, both)
    assert error_of(running, "carl", people.OTHER_PASSWORD) == ""
    server.set_password("person", people.PASSWORD)


def test_a_password_changed_elsewhere_is_known_after_a_login_with_both(
    running: Service, server: Server
) -> None:
    create(running, "ines")
    record = running.user_record("ines")
    brought = {name: record[name] for name in record if name not in ("binding", "status")}
    server.set_password("person", people.OTHER_PASSWORD)
    both = people.secret(people.PASSWORD, people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "ines", people.secret(people.OTHER_PASSWORD), both)
    # As a machine has it that was not there.
    running.call("UnregisterHome", "s", "ines")
    running.call("RegisterHome", "s", people.text(brought))
    assert error_of(running, "ines", people.OTHER_PASSWORD) == "BadPassword"
    running.call("ActivateHome", "ss", "ines", both)
    running.deactivate("ines")
    assert error_of(running, "ines", people.OTHER_PASSWORD) == ""
    server.set_password("person", people.PASSWORD)


def test_a_registered_record_finds_its_home(running: Service) -> None:
    create(running, "dora")
    record = running.user_record("dora")
    running.call("UnregisterHome", "s", "dora")
    assert "dora" not in running.states()
    brought = {name: record[name] for name in record if name not in ("binding", "status")}
    running.call("RegisterHome", "s", people.text(brought))
    assert running.state("dora") == "inactive"
    assert error_of(running, "dora") == ""


def test_a_service_that_starts_anew_has_it_still(own_service: Service, server: Server) -> None:
    create(own_service, "gerd")
    own_service.restart()
    assert own_service.state("gerd") == "inactive"
    own_service.activate("gerd")
    own_service.kill()
    own_service.start()
    assert own_service.state("gerd") == "active"
    assert findings_of(own_service, "gerd") == []
    own_service.deactivate("gerd")
    assert findings_of(own_service, "gerd") == []


def test_what_cannot_be_is_refused_with_the_reason(running: Service, server: Server) -> None:
    (server.share / "full").mkdir(0o777)
    os.chown(server.share / "full", 65534, 65534)
    (server.share / "full" / "file").write_text("of somebody\n")
    for service, error in (
        ("//localhost/homes-of-all/full", "System.Error.EEXIST"),
        ("//localhost/nothing/emil", "System.Error.ENOENT"),
        ("//localhost/homes-of-all/../emil", "InvalidArgs"),
        ("localhost", "InvalidArgs"),
    ):
        record = people.text(people.record("emil", **{**SETTINGS, "cifsService": service}))
        assert running.error("CreateHome", "s", record) == error
        assert "emil" not in running.states()
    assert os.listdir(server.share / "full") == ["file"]


def test_what_is_in_the_directory_decides_what_is_advised(running: Service, server: Server) -> None:
    create(running, "fred")
    running.call("UnregisterHome", "s", "fred")
    service = "//localhost/homes-of-all/fred"
    made = people.text(people.record("fred", **{**SETTINGS, "cifsService": service}))
    with pytest.raises(BusError, match=r"holds a home: register the record in \.identity"):
        running.call("CreateHome", "s", made)
    # A creation writes the record last.
    there = server.share / "fred"
    (there / ".identity").unlink()
    left = sorted(os.listdir(there))
    with pytest.raises(BusError, match="killed has left: empty it if so, then run the same"):
        running.call("CreateHome", "s", made)
    assert sorted(os.listdir(there)) == left != []
    for path in there.iterdir():
        path.unlink()
    running.call("CreateHome", "s", made)
    assert error_of(running, "fred") == ""


def findings_of(service: Service, name: str) -> list[str]:
    (text,) = service.client.call(*MANAGER, "CheckHomes", "s", (name,), timeout_s=60).body
    return [entry["code"] for entry in json.loads(str(text))]
