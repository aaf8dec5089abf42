"""Requests that must be refused: a clear error that names the culprit, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.bus import homemgr1
from homemgr.kernel import mounts
from homemgr.record.model import UserRecord
from homemgr.record.signature import PrivateKey, sign
from homemgr.wire import messages
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.people import PASSWORD, hashed, secret
from tests.service.site import MANAGER, MANAGER_PATH, NAME, Service, short

MIB = 1 << 20

INVALID = "org.freedesktop.DBus.Error.InvalidArgs"

GOOD = people.record("nobodys")

#: What is wrong -> the text of the record, and how the message begins.
MALFORMED = {
    "no JSON": ("{", ".: "),
    "empty": ("", ".: "),
    "array": ("[]", ".: "),
    "string": ('"alice"', ".: "),
    "null": ("null", ".: "),
    "two documents": ('{"userName":"x"}{}', ".: "),
    "no name": ("{}", ".userName: "),
    "name is a number": ('{"userName":7}', ".userName: "),
    "duplicate key": ('{"userName":"x","userName":"y"}', ".userName: "),
    "duplicate key below": ('{"userName":"x","privileged":{"a":1,"a":2}}', ".privileged.a: "),
    "float": (json.dumps({**GOOD, "uid": 60100.5}), ".uid: "),
    "float below": (json.dumps({**GOOD, "x": [{"y": 1e3}]}), ".x[0].y: "),
    "NaN": ('{"userName":"x","y":NaN}', ".y: "),
    "huge integer": (json.dumps({**GOOD, "uid": 1 << 70}), ".uid: "),
    "endless integer": ('{"userName":"x","y":' + "9" * 100_000 + "}", ".y: "),
    "too deep": ('{"userName":"x","y":' + "[" * 5000 + "]" * 5000 + "}", "."),
    "oversized": (json.dumps({**GOOD, "x": "y" * MIB}), ".: "),
    "NUL character": (json.dumps({**GOOD, "realName": "a\0b"}), ".realName: "),
    "half a surrogate": ('{"userName":"x","realName":"\\ud800"}', ".realName: "),
}

#: What is wrong -> members to set, and how the message begins.
UNFIT: dict[str, tuple[dict[str, object], str]] = {
    "real name is a number": ({"realName": 5}, ".realName: "),
    "shell is relative": ({"shell": "bin/sh"}, ".shell: "),
    "home directory is relative": ({"homeDirectory": "x"}, ".homeDirectory: "),
    "home directory is a detour": ({"homeDirectory": "/home/../etc"}, ".homeDirectory: "),
    "home directory is the root": ({"homeDirectory": "/"}, ".homeDirectory: "),
    "home directory with colon": ({"homeDirectory": "/home/a:b"}, ".homeDirectory: "),
    "image path is relative": ({"imagePath": "x.homedir"}, ".imagePath: "),
    "image path is the root": ({"imagePath": "/"}, ".imagePath: "),
    "uid is negative": ({"uid": -5}, ".uid: "),
    "uid is minus one": ({"uid": 4294967295}, ".uid: "),
    "uid is minus one in 16 bits": ({"uid": 65535}, ".uid: "),
    "gid alone": ({"gid": 60123}, ".gid: "),
    "gid differs": ({"uid": 60123, "gid": 60124}, ".gid: "),
    "umask out of range": ({"umask": 0o1777}, ".umask: "),
    "nice level out of range": ({"niceLevel": 20}, ".niceLevel: "),
    "disposition system": ({"disposition": "system"}, ".disposition: "),
    "foreign service": ({"service": "org.example"}, ".service: "),
    "unknown storage": ({"storage": "cloud"}, ".storage: "),
    "classic storage": ({"storage": "classic"}, ".storage: "),
    "realm with final dot": ({"realm": "example.com."}, ".realm: "),
    "realm with space": ({"realm": "a b"}, ".realm: "),
    "alias root": ({"aliases": ["root"]}, ".aliases[0]: "),
    "binding": ({"binding": {}}, ".binding: "),
    "status": ({"status": {}}, ".status: "),
    "blob directory": ({"blobDirectory": "/tmp/x"}, ".blobDirectory: "),
    "privileged is a list": ({"privileged": []}, ".privileged: "),
    "password is a number": ({"secret": {"password": 5}}, ".secret.password"),
    "perMachine is an object": ({"perMachine": {}}, ".perMachine: "),
    "perMachine entry is a string": ({"perMachine": ["x"]}, ".perMachine[0]: "),
    "signature is a string": ({"signature": "x"}, ".signature: "),
    "no hash": ({"privileged": {}}, ".privileged.hashedPassword: "),
}

BAD_NAMES = (
    "",
    "root",
    "nobody",
    "nogroup",
    "systemd-network",
    "_x",
    "-x",
    "1x",
    "123",
    "a.b",
    "a/b",
    "../x",
    "a b",
    "a:b",
    "ä",
    "a" * 32,
    "a\nb",
)

BAD_SECRETS = ("", "x", "[]", "null", '"word"', "{", '{"password":7}', '{"password":[7]}')


@pytest.fixture(autouse=True)
def nothing_changes(service: Service) -> Iterator[None]:
    """Whatever was refused, disk and list of homes are as before."""
    service.site.base.mkdir(0o700, exist_ok=True)
    before, homes = service.site.digest(), service.states()
    yield
    assert service.site.digest() == before
    assert service.states() == homes


@pytest.fixture(scope="module")
def anna(service: Service) -> Service:
    """The service with one good home."""
    service.create("anna")
    return service


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_record_is_refused_with_its_path(anna: Service, what: str) -> None:
    text, beginning = MALFORMED[what]
    for member in ("CreateHome", "UpdateHome"):
        failure = anna.failure(member, "s", text)
        assert (failure.name, failure.message[: len(beginning)]) == (INVALID, beginning)


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_record_is_refused_with_its_path(anna: Service, what: str) -> None:
    members, beginning = UNFIT[what]
    failure = anna.failure("CreateHome", "s", json.dumps({**GOOD, **members}))
    assert (failure.name, failure.message[: len(beginning)]) == (INVALID, beginning)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_that_is_not_allowed_is_refused(anna: Service, name: str) -> None:
    failure = anna.failure("CreateHome", "s", people.text(people.record(name)))
    assert failure.name == INVALID
    assert "name" in failure.message.lower()


@pytest.mark.parametrize("uid", [0, 1, 999, 60578, 61184, 65519, 65534])
def test_uid_of_somebody_else_s_range_is_refused(anna: Service, uid: int) -> None:
    failure = anna.failure("CreateHome", "s", people.text(people.record("kim", uid=uid)))
    assert short(failure.name) == "BadAddress"
    assert str(uid) in failure.message


def test_record_signed_by_an_unknown_key_is_refused(anna: Service) -> None:
    record = sign(UserRecord(people.record("kim")), PrivateKey.generate())
    for member in ("CreateHome", "UpdateHome"):
        text = record.compact().replace('"kim"', '"anna"' if member == "UpdateHome" else '"kim"')
        assert anna.error(member, "s", text) == "BadSignature"


def test_record_changed_after_it_was_signed_is_refused(anna: Service) -> None:
    record = anna.site.signed(people.record("kim"))
    text = record.replaced(realName="Other").compact()
    assert anna.error("CreateHome", "s", text) == "BadSignature"


@pytest.mark.parametrize("data", ["", "x", "AAAA", 5, None])
def test_record_with_a_garbage_signature_is_refused(anna: Service, data: object) -> None:
    signature = [{"data": data, "key": "no key"}]
    text = people.text(people.record("kim", signature=signature))
    assert anna.error("CreateHome", "s", text) in ("BadSignature", "InvalidArgs")


@pytest.mark.parametrize("text", BAD_SECRETS)
def test_garbage_for_a_secret_is_refused(anna: Service, text: str) -> None:
    for call in (
        ("ActivateHome", "ss", "anna", text),
        ("AuthenticateHome", "ss", "anna", text),
        ("AcquireHome", "ssb", "anna", text, False),
        ("ChangePasswordHome", "sss", "anna", text, secret(PASSWORD)),
        ("ChangePasswordHome", "sss", "anna", secret(PASSWORD), text),
    ):
        failure = anna.failure(*call)
        assert failure.name == INVALID
        assert "word" not in failure.message.replace("password", "")


def test_thousands_of_passwords_in_one_call_are_refused(anna: Service) -> None:
    words = [f"guess {number}" for number in range(5000)]
    failure = anna.failure("AuthenticateHome", "ss", "anna", secret(*words))
    assert failure.name == INVALID
    assert "guess" not in failure.message


def test_error_never_repeats_a_password(anna: Service) -> None:
    for text in (
        f'{{"password":["{PASSWORD}"],',
        f'{{"password":["{PASSWORD}"],"password":1}}',
        f'{{"password":{{"x":"{PASSWORD}"}}}}',
    ):
        assert PASSWORD not in anna.failure("ActivateHome", "ss", "anna", text).message
    record = people.text(people.record("kim"))[:-1]
    assert PASSWORD not in anna.failure("CreateHome", "s", record).message


@pytest.mark.parametrize("flags", [1, 2, 1 << 63])
def test_unknown_flags_are_refused(anna: Service, flags: int) -> None:
    text = people.text(people.record("kim"))
    failure = anna.failure("CreateHomeEx", "sa{sh}t", text, {}, flags)
    assert failure.name == INVALID
    if flags > 1:
        text = people.text(people.record("anna"))
        assert anna.failure("UpdateHomeEx", "sa{sh}t", text, {}, flags).name == INVALID


# --- the message itself -------------------------------------------------------------------------


def test_wrong_arguments_are_refused_by_name(anna: Service) -> None:
    assert short(anna.failure("ActivateHome", "s", "anna").name) == "InvalidArgs"
    assert short(anna.failure("ListHomes", "s", "x").name) == "InvalidArgs"
    assert short(anna.failure("NoSuchMember").name) == "UnknownMethod"
    homes = f"{MANAGER_PATH}/home"
    for path in (f"{homes}/kim", f"{homes}/anna/x", f"{homes}/{'9' * 5000}", "/nowhere"):
        with pytest.raises(BusError) as caught:
            anna.client.call(NAME, path, NAME + ".Home", "Activate", "s", ("{}",))
        assert short(caught.value.name) == "UnknownObject"
    with pytest.raises(BusError) as caught:
        anna.client.call(NAME, MANAGER_PATH, MANAGER + "X", "ListHomes")
    assert short(caught.value.name) in ("UnknownInterface", "UnknownMethod", "AccessDenied")


def test_strange_names_in_look_ups_are_just_unknown(anna: Service) -> None:
    for name in ("../anna", "anna/../anna", "\x7f", "a" * 5000, "anna@", "@", "*", "0"):
        assert anna.error("GetHomeByName", "s", name) == "NoSuchHome"
        assert anna.error("ActivateHome", "ss", name, "{}") == "NoSuchHome"


def test_what_an_error_quotes_may_be_as_long_as_a_message(anna: Service) -> None:
    before = anna.pid
    path = "/" + "x" * (messages.MAX_MESSAGE_BYTES - 140)
    with anna.new_client() as client, pytest.raises(BusError) as refusal:
        client.call(NAME, path, "org.freedesktop.DBus.Peer", "X")
    assert refusal.value.name == messages.UNKNOWN_METHOD
    assert len(refusal.value.message) < 100_000
    assert anna.pid == before
    assert "anna" in anna.states()


def test_more_items_than_anybody_needs_are_not_looked_at(anna: Service) -> None:
    paths = ["path"] * 200_000
    call = (homemgr1.NAME, homemgr1.PATH, homemgr1.MANAGER, "DiscardExtensionChanges", "sast")
    with anna.new_client() as client, pytest.raises(BusError) as refusal:
        client.call(*call, ("anna", paths, 0))
    assert refusal.value.name == messages.LIMITS_EXCEEDED


def test_update_for_another_user_or_realm_is_refused(anna: Service) -> None:
    with pytest.raises(BusError) as caught:
        anna.call_home("anna", "Update", "s", people.text(people.record("kim")))
    assert short(caught.value.name) == "RecordMismatch"
    moved = people.text(people.record("anna", realm="example.com"))
    assert anna.error("UpdateHome", "s", moved) == "RecordMismatch"


def test_update_with_an_old_or_equal_stamp_is_refused(anna: Service) -> None:
    stamp = anna.user_record("anna")["lastChangeUSec"]
    assert isinstance(stamp, int)
    older = people.text(people.record("anna", lastChangeUSec=stamp - 1))
    assert anna.error("UpdateHome", "s", older) == "RecordDowngrade"
    other = people.text(people.record("anna", lastChangeUSec=stamp, realName="Other"))
    assert anna.error("UpdateHome", "s", other) == "RecordMismatch"
    unstamped = people.text(people.record("anna", lastChangeUSec=None))
    assert anna.error("UpdateHome", "s", unstamped) == "RecordDowngrade"


def test_weak_hash_in_the_record_is_no_way_in(anna: Service) -> None:
    for bad in ("", "*", "!", PASSWORD, hashed()[:-5]):
        record = people.record("kim", privileged={"hashedPassword": [bad]})
        assert anna.error("CreateHome", "s", people.text(record)) in ("BadPassword", "InvalidArgs")


def test_a_home_on_a_file_server_needs_the_kernel_and_the_server(service: Service) -> None:
    fields = {"storage": "cifs", "cifsService": "//127.0.0.1/homes/nobodys"}
    try:
        mounts.fsopen("cifs").close()
    except OSError:
        expected = ("NotSupported", "it has no file system cifs")
    else:
        expected = ("System.Error.ECONNREFUSED", "")
    before = service.site.digest()
    refused = service.failure("CreateHome", "s", people.text(people.record("nobodys", **fields)))
    assert (short(refused.name), expected[1] in refused.message) == (expected[0], True)
    assert "nobodys" not in service.states()
    assert service.site.digest() == before
    # One that was made where both are.
    brought = service.site.signed(people.record("nobodys", secret=None, uid=60099, **fields))
    service.call("RegisterHome", "s", people.text(brought.data))
    refused = service.failure("ActivateHome", "ss", "nobodys", people.secret(PASSWORD))
    assert (short(refused.name), expected[1] in refused.message) == (expected[0], True)
    assert service.state("nobodys") == "inactive"
    assert "nobodys" not in Path("/proc/self/mounts").read_text()
    service.call("UnregisterHome", "s", "nobodys")
