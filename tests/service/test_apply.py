"""`homemgr apply` with the real service: what is declared comes true once, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from homemgr import crypt
from tests.service.people import PASSWORD, secret
from tests.service.site import ROOT, Service

FREE = {"enforcePasswordPolicy": False}


def apply(
    service: Service, path: Path, *options: str, **variables: str
) -> tuple[int, dict[str, list[str]], str]:
    """The exit code, by user what was done and with which fields, and the complaints."""
    program = "import sys; from homemgr.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "apply", "--json=short", str(path), *options],
        env={**service.site.environment(), "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    told = json.loads(done.stdout) if done.stdout else []
    actions = {e["user"]: [e["action"], *(c["field"] for c in e["changes"])] for e in told}
    return done.returncode, actions, done.stderr


def opens(service: Service, user: str) -> None:
    """The password opens the home, and another one does not."""
    service.call("AuthenticateHome", "ss", user, secret(PASSWORD))
    assert service.error("AuthenticateHome", "ss", user, secret("another")) == "BadPassword"


def test_users_are_made_changed_and_left_alone(service: Service, tmp_path: Path) -> None:
    words = tmp_path / "password"
    words.write_text(f"{PASSWORD}\n")
    os.chmod(words, 0o600)
    anna = {"userName": "anna", "realName": "Anna", "memberOf": ["audio", "video"], **FREE}
    declared = [
        {**anna, "passwordFile": str(words)},
        {"userName": "bert", **FREE, "passwordEnvironment": "BERTS"},
    ]
    file = tmp_path / "users.json"
    file.write_text(json.dumps(declared))
    others = service.site.digest()
    code, actions, _ = apply(service, file, "--dry-run", BERTS=PASSWORD)
    assert (code, actions["anna"][0], actions["bert"][0]) == (3, "create", "create")
    assert "realName" in actions["anna"]
    assert service.site.digest() == others
    code, actions, complaints = apply(service, file, BERTS=PASSWORD)
    assert (code, complaints) == (0, "")
    opens(service, "anna")
    opens(service, "bert")
    before = service.site.digest()
    for options in ((), ("--dry-run",)):
        code, actions, _ = apply(service, file, *options, BERTS=PASSWORD)
        assert (code, actions) == (0, {"anna": ["unchanged"], "bert": ["unchanged"]})
    assert service.site.digest() == before
    declared[0] = {**anna, "realName": None, "memberOf": ["audio"], "passwordFile": str(words)}
    # Without a password: the host copy, and the home at its next use.
    declared[1] = {"userName": "bert", "location": "here", "privileged": {"passwordHint": "cat"}}
    file.write_text(json.dumps(declared))
    code, actions, complaints = apply(service, file)
    assert (code, complaints) == (0, "")
    assert actions["anna"] == ["update", "realName", "memberOf"]
    assert actions["bert"] == ["update", "location", "privileged.passwordHint"]
    record = service.user_record("anna")
    assert "realName" not in record
    assert record["memberOf"] == ["audio"]
    assert service.user_record("bert")["location"] == "here"
    opens(service, "bert")
    inside = json.loads((service.site.base / "bert.homedir/.identity").read_text())
    assert inside["location"] == "here"


def test_a_hash_is_enough_and_decides(service: Service, tmp_path: Path) -> None:
    hashed = {"hashedPassword": [crypt.hash_password(PASSWORD, "$6$")]}
    file = tmp_path / "users.json"
    file.write_text(json.dumps({"userName": "carla", "privileged": hashed}))
    code, actions, complaints = apply(service, file)
    assert (code, actions["carla"][0], complaints) == (0, "create", "")
    opens(service, "carla")
    file.write_text(json.dumps({"userName": "doris", "privileged": hashed, "storage": "luks"}))
    code, actions, complaints = apply(service, file)
    assert (code, actions) == (1, {"doris": ["failed"]})
    assert "luks" in complaints


def test_nobody_is_removed_by_a_word_in_a_file_alone(service: Service, tmp_path: Path) -> None:
    service.create("erna")
    service.create("fritz")
    file = tmp_path / "users.json"
    absent = {"userName": "erna", "state": "absent"}
    file.write_text(json.dumps([absent, {"userName": "fritz", "location": "x"}]))
    assert apply(service, file, "--dry-run")[1]["erna"] == ["remove"]
    code, actions, complaints = apply(service, file)
    assert (code, actions["erna"], actions["fritz"][0]) == (1, ["failed"], "update")
    assert "has to be asked for: --remove" in complaints
    opens(service, "erna")
    code, actions, _ = apply(service, file, "--remove")
    assert (code, actions) == (0, {"erna": ["remove"], "fritz": ["unchanged"]})
    assert service.error("GetHomeByName", "s", "erna") == "NoSuchHome"
    assert apply(service, file, "--dry-run")[0] == 0


def test_a_bad_file_changes_nothing(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    file.write_text('[{"userName":"gerd"},{"userName":"gerd"}]')
    code, actions, complaints = apply(service, file)
    assert (code, actions) == (1, {})
    assert f"{file}: User gerd is declared twice." in complaints
    file.write_text('[{"userName":"gerd","passwordFile":"/nonexistent/x"}]')
    code, actions, complaints = apply(service, file)
    assert code == 1
    assert "/nonexistent/x: No such file" in complaints
    assert service.error("GetHomeByName", "s", "gerd") == "NoSuchHome"
