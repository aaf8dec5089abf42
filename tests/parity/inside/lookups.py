"""The interfaces themselves and the user database: every method with every parameter."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from . import people
from .accounts import is_old
from .recorder import HOME, MANAGER, NAME, PATH, Recorder

PROPERTIES, PEER = "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.Peer"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
OBJECTS, LOG = "org.freedesktop.DBus.ObjectManager", "org.freedesktop.LogControl1"
STRANGER = 4242
GROUPS = ["audio", "games"]


def interfaces(to: Recorder) -> None:
    """Introspection, properties and calls that fit nothing."""
    with people.home(to, "anna", uid=60111, autoLogin=True, memberOf=GROUPS):
        home = f"{PATH}/home/anna"
        for path in (PATH, f"{PATH}/home", home, f"{PATH}/home/60111", f"{PATH}/home/kim", "/"):
            for uid in (0, STRANGER):
                _introspect(to, path, uid)
        for uid in (0, STRANGER, 60111):
            who = {0: "root", STRANGER: "stranger", 60111: "owner"}[uid]
            for path, interface in ((PATH, MANAGER), (home, HOME), (home, ""), (PATH, LOG)):
                what = f"GetAll {path} {interface} ({who})"
                _properties(to, what, "GetAll", "s", interface, path=path, uid=uid)
            for name in ("UserName", "UID", "UnixRecord", "State", "UserRecord", "Nothing"):
                what = f"Get {name} ({who})"
                _properties(to, what, "Get", "ss", HOME, name, path=home, uid=uid)
            what = f"GetManagedObjects ({who})"
            to.call(what, "GetManagedObjects", path=f"{PATH}/home", interface=OBJECTS, uid=uid)
        _properties(to, "Get AutoLogin", "Get", "ss", MANAGER, "AutoLogin")
        _properties(to, "Get by uid", "Get", "ss", HOME, "UserName", path=f"{PATH}/home/60111")
        _properties(to, "wrong interface", "Get", "ss", "org.example", "UserName", path=home)
        for member in ("Ping", "GetMachineId"):
            to.call(member, member, interface=PEER)
        to.call("unknown method", "Nothing")
        to.call("unknown interface", "ListHomes", interface="org.example.Manager")
        to.call("unknown path", "ListHomes", path="/nowhere")
        to.call("no such home", "Activate", "s", "{}", path=f"{PATH}/home/kim", interface=HOME)
        to.call("wrong arguments", "GetHomeByName", "u", 5)
        to.call("too many arguments", "ListHomes", "s", "x")
        to.call("too few arguments", "ActivateHome", "s", "anna")
        for name in ("../anna", "anna/x", "\x7f", "a" * 5000, "anna@", "@", "*", "0", "-1"):
            to.call(f"GetHomeByName {name[:20]!r}", "GetHomeByName", "s", name)
            to.call(f"ActivateHome {name[:20]!r}", "ActivateHome", "ss", name, "{}")
        for uid in (0, 1, 60112, 65534, 4294967295):
            to.call(f"GetHomeByUID {uid}", "GetHomeByUID", "u", uid)
        for uid in (0, 60111):
            to.call(f"empty name as {uid}", "GetHomeByName", "s", "", uid=uid)
            to.call(f"own record as {uid}", "GetUserRecordByName", "s", "", uid=uid)


def _properties(to: Recorder, step: str, *call: object, path: str = PATH, uid: int = 0) -> None:
    member, signature, *arguments = call
    where = {"path": path, "interface": PROPERTIES, "uid": uid}
    to.call(step, str(member), str(signature), *arguments, **where)  # type: ignore[arg-type]


def _introspect(to: Recorder, path: str, uid: int) -> None:
    step = f"Introspect {path} as {uid}"
    body = to.call(f"{step}: text", "Introspect", path=path, interface=INTROSPECTABLE, uid=uid)
    del to.outcomes[f"{to.section}: {step}: text"]
    if body is None:
        to.keep(step, "error")
        return
    found: dict[str, object] = {}
    for node in ElementTree.fromstring(str(body[0])):
        name = node.get("name", "")
        if node.tag == "interface":
            for member in node:
                found[f"{name}.{member.get('name')}"] = [
                    member.get("type"),
                    member.get("access"),
                    *(_attributes(part) for part in member if _attributes(part) != _USUAL),
                ]
        elif node.tag == "node":
            found[f"node {name}"] = True
    to.keep(step, found)


#: The same as no annotation at all.
_USUAL = {"name": "org.freedesktop.DBus.Property.EmitsChangedSignal", "value": "true"}


def _attributes(part: ElementTree.Element) -> dict[str, str]:
    return dict(part.attrib)


def user_database(to: Recorder) -> None:
    """All three methods over the socket."""
    people.create(to, "anna", uid=60111, memberOf=GROUPS, realm="example.com", aliases=["annie"])
    people.create(to, "berta", uid=60222, realName="Berta Beispiel", memberOf=["games"])
    to.quietly("ActivateHome", "ss", "berta", people.SECRET)
    for method, number, name in (
        ("GetUserRecord", "uid", "userName"),
        ("GetGroupRecord", "gid", "groupName"),
    ):
        questions: tuple[dict[str, object], ...] = (
            {},
            {name: "anna"},
            {name: "berta"},
            {name: "annie"},
            {name: "anna@example.com"},
            {name: "annie@example.com"},
            {name: "anna@example.org"},
            {name: "kim"},
            {name: "root"},
            {name: ""},
            {name: "a/b"},
            {name: "a:b"},
            {name: "A" * 3000},
            {name: 5},
            {name: None},
            {number: 60111},
            {number: 60222},
            {number: 60112},
            {number: 0},
            {number: 65534},
            {number: 4294967295},
            {number: -1},
            {number: 60111.5},
            {number: "60111"},
            {number: None},
            {number: 60111, name: "anna"},
            {number: 60111, name: "annie"},
            {number: 60111, name: "berta"},
            {number: 60112, name: "anna"},
            {number: 60111, name: "kim"},
            {"service": "io.systemd.Other"},
            {"service": "absent"},
            {"service": 5},
            {"strange": 1},
            {"fuzzyNames": ["berta"]},
            {"dispositionMask": ["regular"]},
            {"uidMin": 60000},
            {"uuid": "0f3b9ae0-4f4c-4f0e-9d4c-3d6d8d0d1c11"},
        )
        for asked in questions:
            step = f"{method} {asked}"[:120]
            to.userdb(step, method, **asked)
            if asked:
                to.userdb(f"{step} one only", method, more=False, **asked)
        for uid in (60111, STRANGER):
            to.userdb(f"{method} as {uid}", method, caller=uid, **{name: "anna"})
            to.userdb(f"{method} of all as {uid}", method, caller=uid)
    for asked in (
        {},
        {"userName": "anna"},
        {"userName": "annie"},
        {"userName": "anna@example.com"},
        {"userName": "berta"},
        {"userName": "kim"},
        {"groupName": "games"},
        {"groupName": "audio"},
        {"groupName": "anna"},
        {"groupName": "annie"},
        {"groupName": "anna@example.com"},
        {"groupName": "kim"},
        {"userName": "anna", "groupName": "games"},
        {"userName": "anna", "groupName": "anna"},
        {"userName": "annie", "groupName": "annie"},
        {"userName": "berta", "groupName": "audio"},
        {"userName": "a/b"},
        {"groupName": "a/b"},
        {"userName": None},
        {"uid": 60111},
        {"service": "x"},
    ):
        to.userdb(f"GetMemberships {asked}", "GetMemberships", **asked)
        if {"userName", "groupName"} <= asked.keys():
            to.userdb(f"GetMemberships {asked} one only", "GetMemberships", more=False, **asked)
    for method in ("GetInfo", "Nothing"):
        to.userdb(method, f"org.varlink.service.{method}", service="absent")
    to.userdb("no such interface", "org.example.Thing", service="absent")
    to.userdb("no such method", "io.systemd.UserDatabase.Nothing", service="absent")
    to.userdb("ping", "io.systemd.service.Ping", service="absent")


def clients_of_the_user_database(to: Recorder) -> None:
    """getent, id and userdbctl in their many ways."""
    people.create(to, "anna", uid=60111, memberOf=GROUPS, realName="Anna A", **_aliases())
    people.create(to, "berta", uid=60222, memberOf=["games"], emailAddress="b@example.org")
    to.quietly("ActivateHome", "ss", "berta", people.SECRET)
    words: list[tuple[str, ...]] = [
        ("getent", "passwd"),
        ("getent", "group"),
        ("getent", "passwd", "60111"),
        ("getent", "group", "60222"),
        ("getent", "passwd", "annie"),
        ("getent", "gshadow", "anna"),
        ("id", "berta"),
        ("id", "60111"),
        ("id", "annie"),
        ("groups", "anna"),
        ("userdbctl",),
        ("userdbctl", "user"),
        ("userdbctl", "group"),
        ("userdbctl", "user", "annie", "-j"),
        ("userdbctl", "user", "60222", "-j"),
        ("userdbctl", "group", "60222", "-j"),
        ("userdbctl", "users-in-group", "games"),
        ("userdbctl", "users-in-group", "anna"),
        ("userdbctl", "groups-of-user", "annie"),
        ("userdbctl", "groups-of-user"),
        ("userdbctl", "services"),
        ("userdbctl", "--output=classic", "user", "anna"),
        ("userdbctl", "--output=friendly", "user", "berta"),
        ("userdbctl", "-s", "io.systemd.Home", "user", "-j"),
        ("userdbctl", "-s", "io.systemd.Home", "group", "-j"),
        ("userdbctl", "--with-nss=no", "user", "anna", "-j"),
        ("userdbctl", "--synthesize=no", "user", "anna", "-j"),
        ("userdbctl", "--with-dropin=no", "user", "anna", "-j"),
        ("userdbctl", "--chain", "ssh-authorized-keys", "anna"),
        ("homectl", "list"),
        ("homectl", "list", "--no-legend"),
        ("homectl", "inspect", "annie", "-j"),
        ("homectl", "inspect", "60111", "-j"),
        ("homectl", "inspect", "anna", "berta", "-j"),
        ("homectl", "inspect", "anna", "kim"),
        ("homectl", "inspect"),
        ("homectl",),
    ]
    if not is_old():
        words += [
            ("userdbctl", "user", "--fuzzy", "bert", "-j"),
            ("userdbctl", "user", "--fuzzy", "example.org", "-j"),
            ("userdbctl", "user", "--disposition=regular"),
            ("userdbctl", "user", "--uid-min=60200", "--uid-max=60300", "-j"),
            ("userdbctl", "user", "-R"),
            ("userdbctl", "user", "-z", "annie", "-j"),
            ("userdbctl", "group", "-S"),
            ("userdbctl", "group", "--fuzzy", "berta"),
            ("userdbctl", "user", "anna", "--uid-max=5"),
        ]
    for argv in words:
        to.run(" ".join(argv), *argv)
        to.run(f"{' '.join(argv)} as a stranger", *argv, user="games")


def _aliases() -> dict[str, object]:
    """Other names of anna, where records have them."""
    return {} if is_old() else {"aliases": ["annie"]}


def auto_login(to: Recorder) -> None:
    """Who is logged in without being asked, as display managers read it."""
    people.create(to, "anna", uid=60111, autoLogin=True)
    people.create(to, "berta", uid=60222)
    people.register(to, "carla")
    _properties(to, "two homes", "Get", "ss", MANAGER, "AutoLogin")
    record = people.current(to, "berta") | {"autoLogin": True}
    to.call("switch on", "UpdateHome", "s", people.json.dumps(record))
    _properties(to, "both", "Get", "ss", MANAGER, "AutoLogin")
    record = people.current(to, "anna") | {"autoLogin": False}
    to.call("switch off", "UpdateHome", "s", people.json.dumps(record))
    _properties(to, "one", "Get", "ss", MANAGER, "AutoLogin")
    to.call("its own name", "GetNameOwner", "s", NAME + ".x", interface="org.freedesktop.DBus")


SECTIONS = (interfaces, user_database, clients_of_the_user_database, auto_login)
