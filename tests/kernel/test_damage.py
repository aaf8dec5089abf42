"""Records in a home that do not count: when the host copy takes their place, and when not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.record import signature
from homemgr.record.model import UserRecord
from homemgr.storage import mountpoint
from tests.kernel.jobs import PASSWORD, Worker

NEW_PASSWORD = "staple of nine lives"


@pytest.fixture
def alice(area: Path) -> Iterator[Worker]:
    """A worker for alice, whose home is there; unmounted at the end."""
    worker = Worker(area)
    worker.run("create")
    yield worker
    if mountpoint.is_active(str(area / "alice")):
        mountpoint.take_away(str(area / "alice"))


def identity(alice: Worker) -> Path:
    """The record in the home of alice."""
    return alice.area / ".homemgr" / "alice.homedir" / ".identity"


def foreign(alice: Worker, password: str, stamp: int, name: str = "alice") -> bytes:
    """A whole record, signed by another machine."""
    record = alice.signed(password, stamp).replaced(userName=name)
    key = signature.PrivateKey.generate()
    return signature.sign(record, key).embedded().pretty()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "truncated": lambda text: text[: len(text) // 2],
    "zeroes": lambda text: b"\0" * len(text),
    "no text": lambda text: b"\xff\xfe" + text,
    "another value": lambda text: text.replace(b"60456", b"60457"),
    "no signature": lambda text: UserRecord.parse(text).without("signature").pretty(),
    "newer, signature kept": lambda text: text.replace(b"1000000", b"9000000"),
    "binding in it": lambda text: json.dumps({**json.loads(text), "binding": {}}).encode(),
    "array": lambda text: b"[]",
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("verb", ["authenticate", "activate"])
def test_host_copy_takes_the_place_of_a_damaged_record(alice: Worker, what: str, verb: str) -> None:
    good = identity(alice).read_bytes()
    damaged = DAMAGE[what](good)
    assert damaged != good
    identity(alice).write_bytes(damaged)
    result = alice.run(verb)
    assert result["record"] is None
    assert result["is_mounted"] is (verb == "activate")
    assert identity(alice).read_bytes() == good
    assert (identity(alice).stat().st_uid, identity(alice).stat().st_mode & 0o777) == (65534, 0o600)
    assert alice.kept == [damaged]


def test_nothing_is_replaced_before_somebody_has_authenticated(alice: Worker) -> None:
    identity(alice).write_bytes(b"{")
    alice.password = "wrong"
    with pytest.raises(errors.BadPassword):
        alice.run("activate")
    assert identity(alice).read_bytes() == b"{"
    assert alice.kept == []


def test_damaged_record_stays_where_it_cannot_be_kept_and_the_login_works(alice: Worker) -> None:
    identity(alice).write_bytes(b"{")
    alice.keeping_fails = errors.NoDiskSpace("full")
    assert alice.run("activate")["is_mounted"] is True
    assert identity(alice).read_bytes() == b"{"


def test_newer_whole_record_of_an_unknown_signer_is_not_replaced(alice: Worker) -> None:
    # Changed on another machine, perhaps the password: the old one must not open it.
    text = foreign(alice, NEW_PASSWORD, 2_000_000)
    identity(alice).write_bytes(text)
    with pytest.raises(errors.BadSignature, match="homemgr origins trust"):
        alice.run("activate")
    assert identity(alice).read_bytes() == text


def test_older_whole_record_of_an_unknown_signer_is_replaced(alice: Worker) -> None:
    text = foreign(alice, NEW_PASSWORD, 500_000)
    identity(alice).write_bytes(text)
    alice.run("activate")
    assert alice.kept == [text]
    assert UserRecord.parse(identity(alice).read_bytes()).data == alice.record.data


@pytest.mark.parametrize("stamp", [500_000, 2_000_000])
def test_home_of_somebody_else_is_not_shown(alice: Worker, stamp: int) -> None:
    text = foreign(alice, PASSWORD, stamp, name="bob")
    identity(alice).write_bytes(text)
    with pytest.raises(errors.BadSignature):
        alice.run("activate")
    assert identity(alice).read_bytes() == text


@pytest.mark.parametrize("text", [None, b"{", b""])
def test_host_copy_without_an_accepted_key_replaces_nothing(
    alice: Worker, text: bytes | None
) -> None:
    stranger = Worker(alice.area)
    stranger.record = alice.record
    if text is None:
        identity(alice).unlink()
    else:
        identity(alice).write_bytes(text)
    with pytest.raises(errors.HomeError) as refused:
        stranger.run("activate")
    assert isinstance(refused.value, errors.BadSignature | errors.HostileHome)
    assert identity(alice).exists() is (text is not None)


def test_home_found_on_disk_with_a_damaged_record_stays_closed(alice: Worker) -> None:
    identity(alice).write_bytes(b"{")
    guess = UserRecord({"userName": "alice", "disposition": "regular"})
    bound = guess.with_binding("0" * 31 + "1", {"uid": alice.uid})
    with pytest.raises(errors.HostileHome):
        alice.run("activate", record=bound.data, is_fixated=False)


def test_older_record_of_ours_brings_no_old_password_back(alice: Worker) -> None:
    old = identity(alice).read_bytes()
    alice.record = alice.signed(NEW_PASSWORD, 2_000_000)
    identity(alice).write_bytes(old)
    with pytest.raises(errors.BadPassword):
        alice.run("authenticate")
    alice.password = NEW_PASSWORD
    alice.run("authenticate")
    assert UserRecord.parse(identity(alice).read_bytes()).data == alice.record.data


def test_password_is_changed_over_a_damaged_record(alice: Worker) -> None:
    identity(alice).write_bytes(b"{")
    assert alice.keyring.signer is not None
    result = alice.run(
        "passwd",
        new_secret={"password": [NEW_PASSWORD]},
        private_key=alice.keyring.signer.to_pem().decode(),
        former_hashes=[],
        now_usec=2_000_000,
    )
    assert alice.kept == [b"{"]
    assert UserRecord.parse(identity(alice).read_bytes()).data == result["record"]


def test_update_replaces_a_damaged_record(alice: Worker) -> None:
    os.truncate(identity(alice), 10)
    new = alice.signed(PASSWORD, 3_000_000)
    alice.run("update", new_record=new.data)
    assert [len(text) for text in alice.kept] == [10]
    assert UserRecord.parse(identity(alice).read_bytes()).data == new.data
