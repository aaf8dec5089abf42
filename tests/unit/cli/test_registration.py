"""Verbs that take homes and keys in, against a scripted service: what they send and print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Service, error, homemgr

#: A public key, and its fingerprint as `openssl pkey -pubin -outform DER | sha256sum` gives it.
PEM = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
FINGERPRINT = "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f"


def test_adopt_sends_absolute_paths_and_goes_on_after_a_failure(service: Service) -> None:
    service.start(AdoptHome=[error("UnrecognizedHomeFormat", "No home area."), []])
    done = homemgr("adopt", "alice.homedir", "/srv/bob.homedir", service=service)
    assert done.returncode == 1
    assert done.stderr == "homemgr: Cannot adopt alice.homedir: No home area.\n"
    assert service.calls_of("AdoptHome") == [
        [str(Path("alice.homedir").resolve()), 0],
        ["/srv/bob.homedir", 0],
    ]


def test_register_drops_a_signature_if_told_to(service: Service, tmp_path: Path) -> None:
    service.start()
    record = {"userName": "alice", "signature": [{"data": "x", "key": "y"}]}
    path = tmp_path / "alice.json"
    path.write_text(json.dumps(record))
    assert homemgr("register", str(path), "--seize=yes", service=service).returncode == 0
    assert homemgr("register", str(path), service=service).returncode == 0
    done = homemgr("register", service=service, stdin='{"userName":"bob"}')
    assert done.returncode == 0
    sent = [json.loads(str(text)) for (text,) in service.calls_of("RegisterHome")]
    assert sent == [{"userName": "alice"}, record, {"userName": "bob"}]


def test_what_is_no_record_is_refused_and_the_next_one_registered(
    service: Service, tmp_path: Path
) -> None:
    service.start()
    (tmp_path / "bad").write_text("{")
    (tmp_path / "good").write_text('{"userName":"bob"}')
    done = homemgr("register", str(tmp_path / "bad"), str(tmp_path / "good"), service=service)
    assert done.returncode == 1
    assert f"homemgr: {tmp_path / 'bad'}: " in done.stderr
    assert len(service.calls_of("RegisterHome")) == 1


def test_unregister_takes_several_users(service: Service) -> None:
    service.start(UnregisterHome=[[], error("NoSuchHome", "No home bob.")])
    done = homemgr("unregister", "alice", "bob", service=service)
    assert done.returncode == 1
    assert "Cannot unregister home bob: No home bob." in done.stderr
    assert service.calls_of("UnregisterHome") == [["alice"], ["bob"]]


def test_signing_keys_are_listed_with_the_fingerprints_others_see(service: Service) -> None:
    service.start(ListSigningKeys=[[[["local.public", PEM, 0], ["a.public", "?", 0]]]])
    done = homemgr("list-signing-keys", service=service)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["NAME", "FINGERPRINT", "KEY"]
    assert lines[1][:2] == ["a.public", ""]
    assert lines[2] == ["local.public", FINGERPRINT, PEM.splitlines()[1]]
    shown = homemgr("list-signing-keys", "--json=short", service=service).stdout
    assert json.loads(shown)[1] == {
        "name": "local.public",
        "key": PEM,
        "fingerprint": FINGERPRINT,
    }


def test_the_own_key_is_printed_unless_another_is_named(service: Service) -> None:
    service.start(GetSigningKey=[[PEM, 0], [PEM, 0], error("NoSuchKey", "No key b.")])
    assert homemgr("get-signing-key", service=service).stdout == PEM
    done = homemgr("get-signing-key", "a", "b", service=service)
    assert (done.returncode, done.stdout) == (1, PEM)
    assert "Cannot show signing key b: No key b." in done.stderr
    assert service.calls_of("GetSigningKey") == [["local.public"], ["a"], ["b"]]


def test_a_key_is_called_as_its_file_or_as_the_option_says(
    service: Service, tmp_path: Path
) -> None:
    service.start()
    path = tmp_path / "other.public"
    path.write_text(PEM)
    assert homemgr("add-signing-key", str(path), service=service).returncode == 0
    done = homemgr("add-signing-key", "--key-name=b.public", service=service, stdin=PEM)
    assert done.returncode == 0
    assert service.calls_of("AddSigningKey") == [["other.public", PEM, 0], ["b.public", PEM, 0]]


def test_a_file_that_is_no_text_is_no_key(service: Service, tmp_path: Path) -> None:
    service.start()
    path = tmp_path / "other.public"
    path.write_bytes(b"\xff\xfe")
    done = homemgr("add-signing-key", str(path), service=service)
    assert (done.returncode, done.stderr) == (1, f"homemgr: {path}: no key in PEM form.\n")
    assert service.calls == []


@pytest.mark.parametrize("words", [[], ["a", "b", "--key-name=c.public"]])
def test_a_key_needs_a_name_of_its_own(words: list[str]) -> None:
    done = homemgr("add-signing-key", *words)
    assert done.returncode == 1
    assert "homemgr add-signing-key --help" in done.stderr


def test_remove_takes_several_keys(service: Service) -> None:
    service.start(RemoveSigningKey=[error("NoSuchKey", "No key a."), []])
    done = homemgr("remove-signing-key", "a", "b", service=service)
    assert done.returncode == 1
    assert "Cannot remove signing key a: No key a." in done.stderr
    assert service.calls_of("RemoveSigningKey") == [["a", 0], ["b", 0]]
