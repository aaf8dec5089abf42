"""First boot: credentials become users and keys, what is there is left alone, a dialog if asked."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pexpect
import pytest

from homemgr import crypt
from homemgr.cli import console
from homemgr.cli.passed import passed

from .conftest import RUN, Service, environment, error, homemgr
from .test_registration import PEM

NOBODY_YET = {"GetHomeByName": [error("NoSuchHome", "No such home.")]}


def credentials(directory: Path, **texts: str) -> dict[str, str]:
    """The environment of a unit with these credentials; _ in a name stands for a dot."""
    for name, text in texts.items():
        (directory / name.replace("__", "-").replace("_", ".")).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(directory)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "credentials"
    found.mkdir()
    return found


def test_users_are_created_and_registered_and_keys_accepted(service: Service, place: Path) -> None:
    service.start(ListSigningKeys=[[[]]], **NOBODY_YET)
    plain = {"realName": "Alice", "secret": {"password": "correct horse"}, "signature": []}
    given = credentials(
        place,
        home_create_alice=json.dumps(plain),
        home_register_bob='{"userName":"bob","signature":[]}',
        home_add__signing__key_other=PEM,
        home_password="not for us",
    )
    done = homemgr("firstboot", service=service, **given)
    assert done.returncode == 0, done.stderr
    assert service.calls_of("AddSigningKey") == [["other.public", PEM, 0]]
    created = json.loads(str(service.calls_of("CreateHomeEx")[0][0]))
    (hashed,) = created["privileged"]["hashedPassword"]
    assert crypt.verify("correct horse", hashed)
    assert (created["userName"], created["realName"]) == ("alice", "Alice")
    assert "signature" not in created
    assert json.loads(str(service.calls_of("RegisterHome")[0][0])) == {
        "userName": "bob",
        "signature": [],
    }
    # Keys first: they may have signed what is registered.
    order = [call["member"] for call in service.calls]
    assert order.index("AddSigningKey") < order.index("CreateHomeEx") < order.index("RegisterHome")


def test_what_is_there_is_left_alone(service: Service, place: Path) -> None:
    service.start(
        ListSigningKeys=[[[["known.public", PEM, 0]]]],
        GetHomeByName=[[60001, "inactive", 60001, "", "/home/alice", "/bin/sh", "/x"]],
    )
    given = credentials(
        place,
        home_create_alice='{"secret":{"password":"x"}}',
        home_register_root="{}",
        home_add__signing__key_other_public=PEM,
    )
    done = homemgr("firstboot", service=service, **given)
    assert done.returncode == 0
    assert done.stderr.count("left alone") == 3
    assert {call["member"] for call in service.calls} == {"ListSigningKeys", "GetHomeByName"}


def test_a_bad_credential_is_named_and_the_others_are_used(service: Service, place: Path) -> None:
    service.start(RegisterHome=[error("BadSignature", "Not signed."), []], **NOBODY_YET)
    given = credentials(
        place,
        home_create_alice="{",
        home_create_bob='{"userName":"mallory"}',
        home_register_carol="{}",
        home_register_dave="{}",
    )
    done = homemgr("firstboot", service=service, **given)
    assert done.returncode == 1
    for text in ("home.create.alice: ", "home.create.bob: .userName", "carol: Not signed."):
        assert text in done.stderr
    assert "User dave is made of credential home.register.dave." in done.stderr
    assert not service.calls_of("CreateHomeEx")


def test_nothing_passed_is_nothing_to_do(service: Service) -> None:
    service.start()
    done = homemgr("firstboot", service=service)
    assert (done.returncode, done.stderr, service.calls) == (0, "", [])


def test_the_units_own_credential_counts_before_the_machines(tmp_path: Path) -> None:
    for name in ("unit", "machine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "home.create.alice").write_text(name)
    (tmp_path / "machine/home.create.bob").write_text("machine")
    (tmp_path / "machine/home.create.").write_text("no name")
    own = {"CREDENTIALS_DIRECTORY": str(tmp_path / "unit")}
    machine = str(tmp_path / "machine")
    expected = {"alice": b"unit", "bob": b"machine"}
    assert passed("home.create.", 100, own, machine) == expected
    assert passed("home.create.", 100, {}, "/nonexistent") == {}
    with pytest.raises(OSError, match="larger than 3 bytes"):
        passed("home.create.", 3, own, machine)


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        ("quiet root=/dev/sda", True),
        ("systemd.firstboot=no", False),
        ("systemd.firstboot=headless quiet", False),
        ("systemd.firstboot=no systemd.firstboot=yes", True),
    ],
)
def test_the_kernel_command_line_can_forbid_questions(command_line: str, *, expected: bool) -> None:
    assert console.may_prompt(command_line) is expected


def test_the_dialog_makes_the_user_it_was_told_of(service: Service) -> None:
    service.start()
    words = ["firstboot", "--prompt-new-user", "--chrome=no"]
    dialog: pexpect.spawn[str] = pexpect.spawn(
        RUN[0],
        [*RUN[1:], *words],
        env=environment(service, SYSTEMD_HOME_FIRSTBOOT_OVERRIDE="1", TERM="xterm"),
        encoding="utf-8",
        timeout=20,
    )
    dialog.delaybeforesend = None
    for question, typed in (
        ("user name to create", "root"),
        ("is reserved", "carol"),
        ("auxiliary group", "no-such-group"),
        ("There is no group", "daemon"),
        ("Selected: daemon", ""),
        ("the shell of user carol", "/etc/passwd"),
        ("no program", "/bin/sh"),
        ("new password for user carol:", "easy"),
        ("(repeat)", "easy"),
    ):
        dialog.expect_exact(question)
        dialog.sendline(typed)
    dialog.expect_exact("User carol is created.")
    dialog.expect(pexpect.EOF)
    dialog.close()
    assert dialog.exitstatus == 0
    record = json.loads(str(service.calls_of("CreateHomeEx")[0][0]))
    assert record["secret"] == {"password": ["easy"]}
    assert (record["memberOf"], record["shell"]) == (["daemon"], "/bin/sh")
    assert record["enforcePasswordPolicy"] is False


def test_without_a_terminal_the_dialog_fails_and_says_so(service: Service) -> None:
    service.start()
    asked = {"SYSTEMD_HOME_FIRSTBOOT_OVERRIDE": "1"}
    done = homemgr("firstboot", "--prompt-new-user", service=service, **asked)
    assert done.returncode == 1
    assert "no terminal to ask on" in done.stderr
    done = homemgr(
        "firstboot",
        "--prompt-new-user",
        service=service,
        SYSTEMD_HOME_FIRSTBOOT_OVERRIDE="0",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_machine_with_users_is_not_asked_for_one(service: Service) -> None:
    service.start(ListHomes=[[[["alice", 60001, "inactive", 60001, "", "/home/alice", "", "/x"]]]])
    done = homemgr("firstboot", "--prompt-new-user", service=service)
    if console.may_prompt():
        assert "There is a regular user already" in done.stderr
    assert done.returncode == 0


def test_the_console_is_muted_as_long_as_the_block_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "mute")
    heard: list[bytes] = []
    monkeypatch.setattr(console, "_MUTE", path)
    with console.muted() as is_mute:
        assert not is_mute
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                heard.append(client.recv(4096))
                client.sendall(b'{"parameters":{},"continues":true}\0')
                heard.append(client.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        with console.muted() as is_mute:
            assert is_mute
            assert len(heard) == 1
        thread.join()
    request, end = heard
    assert json.loads(request.rstrip(b"\0"))["method"] == "io.systemd.MuteConsole.Mute"
    assert end == b""
