"""What clients hear without asking, and what the objects say about themselves."""

from __future__ import annotations

import subprocess

import pytest

from homemgr.wire.codec import Variant
from tests.service import people
from tests.service.introspection import Member, document, members
from tests.service.monitor import listening
from tests.service.people import PASSWORD, secret
from tests.service.site import HOME, MANAGER, MANAGER_PATH, NAME, Service, wait_until

HOMES = f"{MANAGER_PATH}/home"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
INTERFACES = {
    "org.freedesktop.DBus.Peer",
    "org.freedesktop.DBus.Introspectable",
    PROPERTIES,
    HOME,
}

MANAGER_MEMBERS = {
    "GetHomeByName": ("s", "usussso"),
    "GetHomeByUID": ("u", "ssussso"),
    "GetUserRecordByName": ("s", "sbo"),
    "GetUserRecordByUID": ("u", "sbo"),
    "ListHomes": ("", "a(susussso)"),
    "ActivateHome": ("ss", ""),
    "ActivateHomeIfReferenced": ("ss", ""),
    "DeactivateHome": ("s", ""),
    "CreateHome": ("s", ""),
    "CreateHomeEx": ("sa{sh}t", ""),
    "RealizeHome": ("ss", ""),
    "RemoveHome": ("s", ""),
    "FixateHome": ("ss", ""),
    "AuthenticateHome": ("ss", ""),
    "UpdateHome": ("s", ""),
    "UpdateHomeEx": ("sa{sh}t", ""),
    "ChangePasswordHome": ("sss", ""),
    "AcquireHome": ("ssb", "h"),
    "RefHome": ("sb", "h"),
    "RefHomeUnrestricted": ("sb", "h"),
    "ReleaseHome": ("s", ""),
    "DeactivateAllHomes": ("", ""),
}
HOME_MEMBERS = {
    "Activate": ("s", ""),
    "ActivateIfReferenced": ("s", ""),
    "Deactivate": ("", ""),
    "Realize": ("s", ""),
    "Remove": ("", ""),
    "Fixate": ("s", ""),
    "Authenticate": ("s", ""),
    "Update": ("s", ""),
    "UpdateEx": ("sa{sh}t", ""),
    "ChangePassword": ("ss", ""),
    "Acquire": ("sb", "h"),
    "Ref": ("b", "h"),
    "RefUnrestricted": ("b", "h"),
    "Release": ("", ""),
}


def signatures(found: dict[str, Member]) -> dict[str, tuple[str, str]]:
    return {name: (one.takes, one.gives) for name, one in found.items()}


def get_property(service: Service, path: str, interface: str, name: str) -> object:
    (value,) = service.client.call(NAME, path, PROPERTIES, "Get", "ss", (interface, name)).body
    assert isinstance(value, Variant)
    return value.value


def test_appearance_change_and_removal_are_announced_in_order(service: Service) -> None:
    with listening(service.site.bus_address) as monitor:
        service.create("anna")
        service.activate("anna")
        service.deactivate("anna")
        service.call("RemoveHome", "s", "anna")
        monitor.wait_for(lambda one: one.member == "InterfacesRemoved")
    about = [one for one in monitor.heard if "anna" in one.path or "anna" in one.text]
    assert [about[0].member, about[-1].member] == ["InterfacesAdded", "InterfacesRemoved"]
    assert {one.member for one in about[1:-1]} == {"PropertiesChanged"}
    added, removed = about[0], about[-1]
    assert added.path == removed.path == HOMES
    path, interfaces = added.data
    assert path == f"{HOMES}/anna"
    assert isinstance(interfaces, dict)
    assert set(interfaces) == INTERFACES
    assert set(interfaces[HOME]) == {"UserName", "UID", "UnixRecord", "State"}
    assert isinstance(removed.data[1], list)
    assert set(removed.data[1]) == INTERFACES


def test_state_is_announced_which_systemd_homed_leaves_to_polling(service: Service) -> None:
    service.create("bert")
    with listening(service.site.bus_address) as monitor:
        service.activate("bert")
        monitor.wait_for(lambda one: one.path == f"{HOMES}/bert" and '"active"' in one.text)
        service.deactivate("bert")
        monitor.wait_for(lambda one: one.path == f"{HOMES}/bert" and '"inactive"' in one.text)


def test_changed_record_is_announced(service: Service) -> None:
    service.create("cleo")
    with listening(service.site.bus_address) as monitor:
        service.call("UpdateHome", "s", people.text(people.record("cleo", realName="Cleo Neu")))
        change = monitor.wait_for(lambda one: "Cleo Neu" in one.text)
    assert change.path == f"{HOMES}/cleo"
    interface, changed, invalidated = change.data
    assert interface == HOME
    assert isinstance(changed, dict)
    assert {"UID", "UnixRecord"} <= set(changed)
    assert invalidated == ["UserRecord"]


def test_signals_carry_no_hash_and_no_password(service: Service) -> None:
    with listening(service.site.bus_address) as monitor:
        service.create("dirk")
        service.activate("dirk")
        service.deactivate("dirk")
        monitor.wait_for(lambda one: '"inactive"' in one.text)
    everything = "".join(one.text for one in monitor.heard)
    assert people.hashed() not in everything
    assert PASSWORD not in everything


def test_list_follows_every_change(service: Service) -> None:
    service.create("elsa", realName="Elsa Eins")
    uid = service.call("GetHomeByName", "s", "elsa")[0]

    def row() -> tuple[object, ...] | None:
        (rows,) = service.call("ListHomes")
        assert isinstance(rows, list)
        return next((tuple(row) for row in rows if row[0] == "elsa"), None)

    where = (str(service.path_of("elsa")), "/bin/bash", f"{HOMES}/elsa")
    assert row() == ("elsa", uid, "inactive", uid, "Elsa Eins", *where)
    service.activate("elsa")
    assert row() == ("elsa", uid, "active", uid, "Elsa Eins", *where)
    changed = {"realName": "Elsa Zwei", "shell": "/bin/sh"}
    service.call("UpdateHome", "s", people.text(people.record("elsa", **changed)))
    assert row() == ("elsa", uid, "active", uid, "Elsa Zwei", where[0], "/bin/sh", where[2])
    service.deactivate("elsa")
    service.call("RemoveHome", "s", "elsa")
    assert row() is None


def test_home_is_found_by_uid_under_the_path_with_its_uid(service: Service) -> None:
    service.create("falk")
    uid = service.call("GetHomeByName", "s", "falk")[0]
    assert service.call("GetHomeByUID", "u", uid)[0] == "falk"
    assert service.call("GetHomeByUID", "u", uid)[-1] == f"{HOMES}/{uid}"
    assert service.call("GetUserRecordByUID", "u", uid)[-1] == f"{HOMES}/{uid}"
    assert get_property(service, f"{HOMES}/{uid}", HOME, "UserName") == "falk"
    assert service.error("GetHomeByUID", "u", 59999) == "NoSuchHome"
    assert service.error("GetHomeByUID", "u", 0xFFFFFFFF) == "InvalidArgs"


def test_unusual_names_have_escaped_paths(service: Service) -> None:
    service.create("g-h_1")
    path = service.call("GetHomeByName", "s", "g-h_1")[-1]
    assert path == f"{HOMES}/g_2dh_5f1"
    assert get_property(service, str(path), HOME, "UserName") == "g-h_1"


def test_manager_members_are_those_of_systemd_homed(service: Service) -> None:
    found = signatures(members(service, MANAGER_PATH, MANAGER))
    assert {name: found.get(name) for name in MANAGER_MEMBERS} == MANAGER_MEMBERS


def test_home_members_and_properties_are_those_of_systemd_homed(service: Service) -> None:
    service.create("ilse")
    path = f"{HOMES}/ilse"
    found = signatures(members(service, path, HOME))
    assert {name: found.get(name) for name in HOME_MEMBERS} == HOME_MEMBERS
    properties = document(service, path).findall(f"interface[@name='{HOME}']/property")
    assert {(one.get("name"), one.get("type"), one.get("access")) for one in properties} == {
        ("UserName", "s", "read"),
        ("UID", "u", "read"),
        ("UnixRecord", "(suusss)", "read"),
        ("State", "s", "read"),
        ("UserRecord", "(sb)", "read"),
    }


def test_properties_have_their_values(service: Service) -> None:
    service.create("jutta", realName="Jutta")
    uid = service.call("GetHomeByName", "s", "jutta")[0]
    path = f"{HOMES}/jutta"
    assert get_property(service, path, HOME, "UID") == uid
    assert get_property(service, path, HOME, "State") == "inactive"
    unix = get_property(service, path, HOME, "UnixRecord")
    where = str(service.path_of("jutta"))
    assert tuple(unix) == ("jutta", uid, uid, "Jutta", where, "/bin/bash")  # type: ignore[arg-type]
    shown = get_property(service, path, HOME, "UserRecord")
    assert isinstance(shown, tuple | list)
    assert people.parse(str(shown[0]))["userName"] == "jutta"
    assert shown[1] is False


def test_homes_with_automatic_login_are_told_to_display_managers(service: Service) -> None:
    def value() -> list[list[object]]:
        found = get_property(service, MANAGER_PATH, MANAGER, "AutoLogin")
        assert isinstance(found, list)
        return [list(row) for row in found]

    assert value() == []
    row = ["nora", "seat0", f"{HOMES}/nora"]
    with listening(service.site.bus_address) as monitor:
        service.create("nora", autoLogin=True)
        monitor.wait_for(lambda one: one.path == MANAGER_PATH and str(row[2]) in one.text)
        assert value() == [row]
        monitor.heard.clear()
        service.call("UpdateHome", "s", people.text(people.record("nora", autoLogin=False)))
        change = monitor.wait_for(lambda one: one.path == MANAGER_PATH)
    assert change.data == [MANAGER, {"AutoLogin": {"type": "a(sso)", "data": []}}, []]
    assert value() == []


def test_object_manager_lists_homes_at_their_parent_only(service: Service) -> None:
    service.create("klaus")
    (managed,) = service.client.call(NAME, HOMES, OBJECT_MANAGER, "GetManagedObjects").body
    assert isinstance(managed, dict)
    assert HOME in managed[f"{HOMES}/klaus"]
    assert OBJECT_MANAGER not in {
        one.get("name") for one in document(service, MANAGER_PATH).findall("interface")
    }


@pytest.mark.parametrize("verb", ["tree", "introspect", "call"])
def test_busctl_understands_the_service(service: Service, verb: str) -> None:
    service.create(f"lotte{verb}")
    arguments = {
        "tree": [NAME],
        "introspect": [NAME, f"{HOMES}/lotte{verb}"],
        "call": [NAME, MANAGER_PATH, MANAGER, "GetHomeByName", "s", f"lotte{verb}"],
    }[verb]
    busctl = ["busctl", f"--address={service.site.bus_address}", "--no-pager", verb, *arguments]
    output = subprocess.run(busctl, check=True, capture_output=True, text=True)
    assert f"lotte{verb}" in output.stdout
    assert output.stderr == ""


def test_activation_by_object_and_by_manager_are_the_same(service: Service) -> None:
    service.create("mona")
    service.call_home("mona", "Activate", "s", secret(PASSWORD))
    assert service.error("ActivateHome", "ss", "mona", secret(PASSWORD)) == "HomeAlreadyActive"
    service.call_home("mona", "Deactivate")
    wait_until(lambda: service.state("mona") == "inactive", "mona to be inactive")
