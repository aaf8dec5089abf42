"""The user database as nss-systemd, userdbctl and sshd ask it."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import people
from tests.service.bus import STRANGERS
from tests.service.people import PASSWORD, secret
from tests.service.site import Service
from tests.service.userdb import Answer, UserDatabase, VarlinkFailure

ANNA, BERT = STRANGERS[0], STRANGERS[1]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def homes(service: Service) -> Service:
    """Two homes: one with realm, aliases and groups, one with nothing special."""
    service.create(
        "anna",
        uid=ANNA,
        realm="example.com",
        aliases=["ann", "annie"],
        memberOf=["wheel", "audio"],
        realName="Anna Example",
    )
    service.create("bert", uid=BERT, memberOf=["audio"])
    return service


@pytest.fixture
def database(homes: Service) -> Iterator[UserDatabase]:
    with UserDatabase(homes.site.userdb_socket) as connected:
        yield connected


def refused(database: UserDatabase, method: str, **parameters: object) -> VarlinkFailure:
    with pytest.raises(VarlinkFailure) as caught:
        database.ask(method, **parameters)
    return caught.value


def status_of(record: Answer) -> Answer:
    (found,) = record["status"].values()
    assert isinstance(found, dict)
    return found


def pairs(answers: list[Answer]) -> list[tuple[str, str]]:
    return [(one["userName"], one["groupName"]) for one in answers]


def test_socket_is_for_everybody(homes: Service) -> None:
    path = homes.site.userdb_socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "key",
    [
        {"userName": "anna"},
        {"uid": ANNA},
        {"userName": "anna", "uid": ANNA},
        {"userName": "ann"},
        {"userName": "anna@example.com"},
        {"userName": "annie@example.com"},
    ],
    ids=str,
)
def test_user_is_found_by_every_key(database: UserDatabase, key: dict[str, object]) -> None:
    answer = database.ask("GetUserRecord", **key)
    assert answer["record"]["userName"] == "anna"
    assert answer["incomplete"] is False


def status(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says of this machine."""
    (found,) = record["status"].values()
    assert isinstance(found, dict)
    return found


def test_user_record_is_that_of_the_bus(homes: Service, database: UserDatabase) -> None:
    # Whoever asks the bus has the disk asked; the database tells what is known.
    of_bus = homes.user_record("anna")
    answer = database.ask("GetUserRecord", userName="anna")
    assert {**answer["record"], "status": {}} == {**of_bus, "status": {}}
    of_machine, there = (status(record) for record in (of_bus, answer["record"]))
    assert "diskSize" in of_machine
    assert there.keys() == of_machine.keys()
    # What is free and in use may be another by now.
    steady = ("service", "signedLocally", "state", "useFallback", "diskSize", "fileSystemType")
    assert [there.get(key) for key in steady] == [of_machine.get(key) for key in steady]


def test_conflicting_keys_are_said_so(database: UserDatabase) -> None:
    failure = refused(database, "GetUserRecord", userName="anna", uid=BERT)
    assert failure.name == "ConflictingRecordFound"
    failure = refused(database, "GetGroupRecord", groupName="anna", gid=BERT)
    assert failure.name == "ConflictingRecordFound"
    # Nothing conflicts with an id that nobody has.
    failure = refused(database, "GetUserRecord", userName="anna", uid=59999)
    assert failure.name == "NoRecordFound"


def test_unknown_users_and_groups_are_not_found(database: UserDatabase) -> None:
    for key in ({"userName": "zora"}, {"uid": 0}, {"uid": 59999}, {"userName": "root"}):
        assert refused(database, "GetUserRecord", **key).name == "NoRecordFound"
    for key in ({"groupName": "audio"}, {"gid": 5}):
        assert refused(database, "GetGroupRecord", **key).name == "NoRecordFound"


def test_other_service_is_refused(database: UserDatabase) -> None:
    for method in ("GetUserRecord", "GetGroupRecord", "GetMemberships"):
        assert refused(database, method, service="io.systemd.Other").name == "BadService"


@pytest.mark.parametrize(
    ("method", "parameters", "culprit"),
    [
        ("GetUserRecord", {"service": None}, "service"),
        ("GetUserRecord", {"userName": None}, "userName"),
        ("GetUserRecord", {"userName": 5}, "userName"),
        ("GetUserRecord", {"uid": "5"}, "uid"),
        ("GetUserRecord", {"uid": True}, "uid"),
        ("GetUserRecord", {"uid": -1}, "uid"),
        ("GetUserRecord", {"uid": 1 << 40}, "uid"),
        ("GetUserRecord", {"uidMin": 0}, "uidMin"),
        ("GetUserRecord", {"fuzzyNames": ["a"]}, "fuzzyNames"),
        ("GetUserRecord", {"userName": ""}, "userName"),
        ("GetUserRecord", {"userName": "a:b"}, "userName"),
        ("GetUserRecord", {"userName": "a/b"}, "userName"),
        ("GetGroupRecord", {"gidMax": 5}, "gidMax"),
        ("GetMemberships", {"groupName": []}, "groupName"),
    ],
)
def test_parameters_that_systemd_homed_refuses_are_refused_in_its_words(
    database: UserDatabase, method: str, parameters: dict[str, object], culprit: str
) -> None:
    failure = refused(database, method, **parameters)
    assert failure.name == "org.varlink.service.InvalidParameter"
    assert failure.parameters == {"parameter": culprit}


def test_group_record_is_that_of_the_user(database: UserDatabase) -> None:
    for key in ({"groupName": "anna"}, {"gid": ANNA}, {"groupName": "anna", "gid": ANNA}):
        answer = database.ask("GetGroupRecord", **key)
        assert "incomplete" not in answer
        record = answer["record"]
        assert record["groupName"] == "anna"
        assert record["realm"] == "example.com"
        assert record["description"] == "Primary Group of User anna"
        assert record["disposition"] == "regular"
        assert status_of(record)["service"] == "io.systemd.Home"
        (binding,) = record["binding"].values()
        assert binding == {"gid": ANNA}
        assert "members" not in record


def test_memberships_by_user_group_pair_and_all(database: UserDatabase) -> None:
    anna = {("anna", "wheel"), ("anna", "audio"), ("anna", "anna")}
    bert = {("bert", "audio"), ("bert", "bert")}
    assert set(pairs(database.all("GetMemberships", userName="anna"))) == anna
    audio = pairs(database.all("GetMemberships", groupName="audio"))
    assert sorted(audio) == [("anna", "audio"), ("bert", "audio")]
    assert pairs(database.all("GetMemberships", groupName="bert")) == [("bert", "bert")]
    for name in ("annie", "anna@example.com"):
        assert pairs(database.all("GetMemberships", groupName=name)) == [("anna", name)]
    both = database.all("GetMemberships", userName="anna", groupName="wheel")
    assert pairs(both) == [("anna", "wheel")]
    everything = pairs(database.all("GetMemberships"))
    assert set(everything) == anna | bert
    assert len(everything) == len(set(everything))
    pair = {"userName": "bert", "groupName": "wheel"}
    assert refused(database, "GetMemberships", **pair).name == "NoRecordFound"
    assert refused(database, "GetMemberships", userName="zora").name == "NoRecordFound"
    assert refused(database, "GetMemberships", groupName="zora").name == "NoRecordFound"


def test_enumeration_gives_every_home_once_and_says_what_continues(database: UserDatabase) -> None:
    users = database.all("GetUserRecord")
    assert sorted(one["record"]["userName"] for one in users) == ["anna", "bert"]
    groups = database.all("GetGroupRecord")
    assert sorted(one["record"]["groupName"] for one in groups) == ["anna", "bert"]


def test_questions_sent_ahead_are_answered_in_order(database: UserDatabase) -> None:
    asked = ["anna", "bert", "zora", "anna"] * 25
    for name in asked:
        database.send("GetUserRecord", {"userName": name})
    for name in asked:
        answer = database.receive()
        if name == "zora":
            assert answer["error"].endswith("NoRecordFound")
        else:
            assert answer["parameters"]["record"]["userName"] == name


def test_fallback_is_for_inactive_homes_only_and_the_real_directory_is_always_told(
    homes: Service, database: UserDatabase
) -> None:
    where = str(homes.path_of("bert"))

    def shown() -> tuple[object, object]:
        record = database.ask("GetUserRecord", userName="bert")["record"]
        (binding,) = record["binding"].values()
        return status_of(record)["useFallback"], binding["homeDirectory"]

    assert shown() == (True, where)
    homes.activate("bert")
    assert shown() == (False, where)
    state = status_of(database.ask("GetUserRecord", uid=BERT)["record"])["state"]
    assert state == "active"
    homes.deactivate("bert")
    assert shown() == (True, where)


def test_privileged_section_is_for_root_and_the_owner(homes: Service) -> None:
    program = (
        "import json, os, sys; from pathlib import Path; uid = int(sys.argv[2]);"
        "from tests.service.userdb import UserDatabase;"
        "os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid);"
        "print(json.dumps(UserDatabase(Path(sys.argv[1])).all('GetUserRecord')))"
    )
    arguments = [str(homes.site.userdb_socket), str(ANNA)]
    output = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    shown = {one["record"]["userName"]: one for one in json.loads(output)}
    assert "privileged" in shown["anna"]["record"]
    assert shown["anna"]["incomplete"] is False
    assert "privileged" not in shown["bert"]["record"]
    assert shown["bert"]["incomplete"] is True
    assert people.hashed() not in json.dumps(shown["bert"])


def test_look_ups_go_on_while_operations_hang(homes: Service, database: UserDatabase) -> None:
    with homes.paused():
        pending = homes.begin("AuthenticateHome", "ss", "anna", secret(PASSWORD))
        homes.wait_for("anna", "authenticating")
        answer = database.ask("GetUserRecord", userName="anna")
        assert status_of(answer["record"])["state"] == "authenticating"
    pending.result()


def test_look_ups_follow_every_change(homes: Service, database: UserDatabase) -> None:
    homes.create("carl")
    assert database.ask("GetUserRecord", userName="carl")["record"]["userName"] == "carl"
    update = people.record("carl", realName="Carl Neu", memberOf=["video"])
    homes.call("UpdateHome", "s", people.text(update))
    assert database.ask("GetUserRecord", userName="carl")["record"]["realName"] == "Carl Neu"
    assert pairs(database.all("GetMemberships", groupName="video")) == [("carl", "video")]
    homes.call("RemoveHome", "s", "carl")
    assert refused(database, "GetUserRecord", userName="carl").name == "NoRecordFound"
    assert refused(database, "GetGroupRecord", groupName="carl").name == "NoRecordFound"


@pytest.mark.parametrize("garbage", [b"x\0", b"{}\0", b"[]\0", b'{"method":5}\0', b"\0", b"\xff\0"])
def test_garbage_ends_or_refuses_its_own_connection_only(homes: Service, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(homes.site.userdb_socket))
        sock.sendall(garbage)
        answer = sock.recv(4096)
        assert answer == b"" or b'"error"' in answer
    with UserDatabase(homes.site.userdb_socket) as database:
        assert database.ask("GetUserRecord", uid=ANNA)["record"]["userName"] == "anna"


def test_many_idle_connections_keep_nobody_out(homes: Service) -> None:
    idle = [UserDatabase(homes.site.userdb_socket) for _ in range(200)]
    with UserDatabase(homes.site.userdb_socket) as database:
        assert database.ask("GetUserRecord", uid=ANNA)["record"]["userName"] == "anna"
    for connection in idle:
        connection.__exit__()
