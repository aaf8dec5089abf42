"""Each verb against a scripted service: what it sends, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr import crypt

from .conftest import RUN, Service, environment, error, homemgr

if TYPE_CHECKING:
    from pathlib import Path

HOMES = [
    ["bob", 60076, "inactive", 60076, "Bob\tB.", "/home/bob", "/bin/bash", "/x/bob"],
    ["alice", 60456, "active", 60456, "Alice", "/home/alice", "/bin/sh", "/x/alice"],
]
RECORD = {
    "userName": "alice",
    "disposition": "regular",
    "lastChangeUSec": 1,
    "privileged": {"hashedPassword": ["$y$j9T$x"]},
    "blobManifest": {},
    "signature": [{"data": "", "key": ""}],
    "binding": {"0" * 32: {"uid": 60456}},
    "status": {"0" * 32: {"state": "active"}},
    "x.unknown": {"kept": [1, {"a": None}]},
}


def secret(text: object) -> dict[str, object]:
    value = json.loads(str(text))
    assert isinstance(value, dict)
    return value


# --- list ------------------------------------------------------------


def test_list_in_a_pipe_is_sorted_and_split_by_tabs(service: Service) -> None:
    service.start(ListHomes=[[HOMES]])
    done = homemgr("list", service=service)
    assert done.returncode == 0
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["NAME", "UID", "GID", "STATE", "REALNAME", "HOME", "SHELL"],
        ["alice", "60456", "60456", "active", "Alice", "/home/alice", "/bin/sh"],
        ["bob", "60076", "60076", "inactive", "Bob B.", "/home/bob", "/bin/bash"],
    ]


def test_list_without_legend_has_no_header(service: Service) -> None:
    service.start(ListHomes=[[HOMES]])
    assert homemgr("--no-legend", "list", service=service).stdout.startswith("alice\t")


def test_list_is_the_default_verb(service: Service) -> None:
    service.start(ListHomes=[[HOMES]])
    assert homemgr(service=service).stdout == homemgr("list", service=service).stdout


def test_list_json_has_the_members_of_homectl(service: Service) -> None:
    service.start(ListHomes=[[HOMES]])
    value = json.loads(homemgr("list", "--json=short", service=service).stdout)
    assert [entry["name"] for entry in value] == ["alice", "bob"]
    assert set(value[0]) == {"name", "uid", "gid", "state", "realname", "home", "shell"}
    assert value[1]["realname"] == "Bob\tB."


def test_a_name_that_the_locale_cannot_write_is_no_failure(service: Service) -> None:
    home = ["zoe", 60076, "inactive", 60076, "Zoë ☃", "/home/zoe", "/bin/sh", "/x/zoe"]
    service.start(ListHomes=[[[home]]])
    done = homemgr("list", service=service, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Zo? ?" in done.stdout


def test_empty_list_is_an_empty_array_in_json(service: Service) -> None:
    service.start(ListHomes=[[[]]])
    assert homemgr("list", "-j", service=service).stdout == "[]\n"


def test_a_reader_that_leaves_early_is_no_failure_of_ours(service: Service) -> None:
    many = [[f"u{n}", n, "inactive", n, "", f"/home/u{n}", "", f"/x/u{n}"] for n in range(20_000)]
    service.start(ListHomes=[[many]])
    with subprocess.Popen(
        [*RUN, "list"],
        env=environment(service),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


# --- activate, authenticate: credentials ---------------------------------------------------


def test_activate_sends_the_password_of_the_environment(service: Service) -> None:
    service.start()
    done = homemgr("activate", "alice", service=service, PASSWORD="pw é")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ((user, text),) = service.calls_of("ActivateHome")
    assert (user, secret(text)) == ("alice", {"password": ["pw é"]})


def test_activate_in_a_mode_is_a_call_of_our_own(service: Service) -> None:
    service.start()
    done = homemgr("activate", "alice", "--home-mode=ephemeral", service=service, PASSWORD="pw")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ((user, text, mode),) = service.calls_of("ActivateHomeInMode")
    assert (user, secret(text), mode) == ("alice", {"password": ["pw"]}, "ephemeral")


def test_first_call_without_a_password_is_empty(service: Service) -> None:
    service.start(ActivateHome=[error("BadPassword", "no")])
    done = homemgr("activate", "alice", service=service)
    assert secret(service.calls_of("ActivateHome")[0][1]) == {}
    assert done.returncode == 1
    assert "There is no terminal to ask on" in done.stderr


def test_no_ask_password_asks_nothing_and_clears_the_interactive_flag(service: Service) -> None:
    service.start(ActivateHome=[error("BadPassword", "The password does not unlock it.")])
    done = homemgr("activate", "alice", "--no-ask-password", service=service)
    assert done.returncode == 1
    assert "Cannot activate home alice: The password does not unlock it." in done.stderr
    assert service.calls[0]["interactive"] is False


def test_calls_allow_interactive_authorization(service: Service) -> None:
    service.start()
    homemgr("activate", "alice", service=service)
    assert service.calls[0]["interactive"] is True


def test_one_failing_home_does_not_stop_the_others(service: Service) -> None:
    service.start(ActivateHome=[error("HomeAbsent", "Its disk is away."), []])
    done = homemgr("activate", "alice", "bob", service=service)
    assert done.returncode == 1
    assert [user for user, _ in service.calls_of("ActivateHome")] == ["alice", "bob"]
    # The message of the service, then the advice of the table of failures.
    assert "Cannot activate home alice: Its disk is away." in done.stderr
    assert "Attach the disk" in done.stderr


def test_credentials_of_the_service_manager_are_used(service: Service, tmp_path: Path) -> None:
    service.start()
    (tmp_path / "home.password").write_text("from a credential\n")
    homemgr("authenticate", "alice", service=service, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert secret(service.calls_of("AuthenticateHome")[0][1]) == {"password": ["from a credential"]}


# --- deactivate, remove ------------------------------------------------------------


def test_deactivate_tries_again_while_the_home_is_busy_and_says_who_holds_it(
    service: Service,
) -> None:
    busy = error("HomeBusy", "Home alice is used by vim[12].")
    service.start(DeactivateHome=[busy, busy, []])
    done = homemgr("deactivate", "alice", service=service)
    assert done.returncode == 0
    assert len(service.calls_of("DeactivateHome")) == 3
    assert done.stderr.count("vim[12]") == 1


def test_deactivate_all_calls_once(service: Service) -> None:
    service.start()
    assert homemgr("deactivate-all", service=service).returncode == 0
    assert [call["member"] for call in service.calls] == ["DeactivateAllHomes"]


def test_remove_takes_several_homes(service: Service) -> None:
    service.start(RemoveHome=[[], error("NoSuchHome", "No home bob.")])
    done = homemgr("remove", "alice", "bob", service=service)
    assert done.returncode == 1
    assert "Cannot remove home bob: No home bob." in done.stderr
    assert "homemgr list" in done.stderr


# --- lock, unlock, resize, rebalance -------------------------------------------------


def test_lock_takes_several_homes_and_gives_the_reason_of_a_refusal(service: Service) -> None:
    service.start(LockHome=[[], error("org.freedesktop.DBus.Error.NotSupported", "It has no key.")])
    done = homemgr("lock", "alice", "bob", service=service)
    assert done.returncode == 1
    assert service.calls_of("LockHome") == [["alice"], ["bob"]]
    assert "Cannot lock home bob: It has no key." in done.stderr


def test_unlock_brings_the_credentials(service: Service) -> None:
    service.start(UnlockHome=[[], error("HomeNotLocked", "Home bob is not locked.")])
    done = homemgr("unlock", "alice", "bob", service=service, PASSWORD="pw")
    assert done.returncode == 1
    ((user, text), (other, _)) = service.calls_of("UnlockHome")
    assert (user, secret(text), other) == ("alice", {"password": ["pw"]}, "bob")
    assert "Cannot unlock home bob: Home bob is not locked." in done.stderr


def test_lock_all_says_what_stays_readable(service: Service) -> None:
    states = ("active", "locked", "lingering", "inactive")
    rows = [[s, 60000 + i, s, 60000 + i, s, "/", "", "/x"] for i, s in enumerate(states)]
    service.start(ListHomes=[[rows]])
    done = homemgr("lock-all", service=service)
    assert done.returncode == 0
    assert [call["member"] for call in service.calls] == ["LockAllHomes", "ListHomes"]
    assert done.stderr == "Home active stays readable.\nHome lingering stays readable.\n"


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("2G",), 2 << 30),
        (("min",), 0),
        (("max",), (1 << 64) - 2),
        ((), (1 << 64) - 1),
    ],
)
def test_resize_passes_the_size_on(service: Service, words: tuple[str, ...], size: int) -> None:
    service.start()
    done = homemgr("resize", "alice", *words, service=service, PASSWORD="pw")
    assert done.returncode == 0
    ((user, sent, text),) = service.calls_of("ResizeHome")
    assert (user, sent, secret(text)) == ("alice", size, {"password": ["pw"]})


@pytest.mark.parametrize("size", ["50%", "much", "16E", "-1"])
def test_resize_to_what_is_no_size(service: Service, size: str) -> None:
    service.start()
    done = homemgr("resize", "--", "alice", size, service=service)
    assert done.returncode == 1
    assert f"{size}: expected " in done.stderr
    assert service.calls == []


def test_rebalance_that_nobody_needs_is_no_failure_and_says_so(service: Service) -> None:
    service.start(Rebalance=[error("RebalanceNotNeeded", "None."), error("HomeBusy", "No.")])
    done = homemgr("rebalance", service=service)
    assert (done.returncode, done.stderr) == (0, "No home needs rebalancing.\n")
    assert homemgr("rebalance", service=service).returncode == 1


# --- with ------------------------------------------------------------


def test_with_holds_the_home_while_the_command_runs_and_releases_it(
    service: Service, tmp_path: Path
) -> None:
    home = [60456, "active", 60456, "", str(tmp_path), "/bin/sh", "/x"]
    service.start(GetHomeByName=[home])
    done = homemgr("with", "alice", "pwd", "-P", service=service)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
    calls = {str(call["member"]): call for call in service.calls}
    assert list(calls) == ["AcquireHome", "GetHomeByName", "ReleaseHome"]
    assert calls["GetHomeByName"]["references"] == [True]
    assert calls["ReleaseHome"]["references"] == [False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is given a home without a password")
def test_with_asks_root_for_no_password_where_none_is_needed(
    service: Service, tmp_path: Path
) -> None:
    home = [60456, "active", 60456, "", str(tmp_path), "/bin/sh", "/x"]
    service.start(GetHomeByName=[home], AcquireHome=[error("BadPassword")])
    done = homemgr("with", "alice", "pwd", "-P", service=service)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
    calls = [str(call["member"]) for call in service.calls]
    assert calls == ["AcquireHome", "RefHome", "GetHomeByName", "ReleaseHome"]
    # A password that is given has to be right.
    refused = homemgr("with", "alice", "true", service=service, PASSWORD="wrong")
    assert refused.returncode == 1
    assert [str(call["member"]) for call in service.calls][4:] == ["AcquireHome"]


def test_with_gives_the_exit_code_of_the_command(service: Service, tmp_path: Path) -> None:
    service.start(GetHomeByName=[[1, "active", 1, "", str(tmp_path), "", "/x"]])
    assert homemgr("with", "alice", "--", "sh", "-c", "exit 7", service=service).returncode == 7
    assert homemgr("with", "alice", "sh", "-c", "kill -9 $$", service=service).returncode == 137
    assert homemgr("with", "alice", "/nonexistent", service=service).returncode == 127


def test_with_a_home_that_stays_in_use_is_no_failure(service: Service, tmp_path: Path) -> None:
    home = [1, "active", 1, "", str(tmp_path), "", "/x"]
    service.start(GetHomeByName=[home], ReleaseHome=[error("HomeBusy", "Session 3 uses it.")])
    done = homemgr("with", "alice", "true", service=service)
    assert (done.returncode, done.stderr) == (0, "Home alice stays active: Session 3 uses it.\n")


def test_interrupt_reaches_the_command_and_the_home_is_released(
    service: Service, tmp_path: Path
) -> None:
    service.start(GetHomeByName=[[1, "active", 1, "", str(tmp_path), "", "/x"]])
    with subprocess.Popen(
        [*RUN, "with", "alice", "sh", "-c", "echo up; exec sleep 60"],
        env=environment(service),
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert service.calls_of("ReleaseHome") == [["alice"]]


def test_command_may_leave_core_dumps_though_what_was_told_the_password_may_not(
    service: Service, tmp_path: Path
) -> None:
    service.start(GetHomeByName=[[1, "active", 1, "", str(tmp_path), "", "/x"]])
    # The command runs a moment before the program that started it is as it was again.
    look = "grep 'core file size *0 ' /proc/$PPID/limits"
    script = f"ulimit -Sc; until {look}; do sleep 0.01; done"
    limit = f"ulimit -Sc unlimited; exec {shlex.join([*RUN, 'with', 'alice', 'sh', '-c', script])}"
    done = subprocess.run(
        ["sh", "-c", limit],
        env=environment(service, PASSWORD="old"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    own, ours = done.stdout.splitlines()
    assert own == "unlimited"
    assert ours.split()[4] == "0"


@pytest.mark.parametrize("verb", ["passwd", "create"])
def test_empty_new_password_is_refused(service: Service, verb: str) -> None:
    service.start()
    done = homemgr(verb, "alice", service=service, NEWPASSWORD="")
    assert (done.returncode, service.calls) == (1, [])
    assert "new password for user alice is empty" in done.stderr
    assert len(done.stderr.splitlines()) == 2


# --- create ------------------------------------------------------------


def created(service: Service, *options: str, **variables: str) -> dict[str, object]:
    service.start()
    done = homemgr("create", "alice", *options, service=service, NEWPASSWORD="new pw", **variables)
    assert done.stderr == ""
    assert done.returncode == 0
    ((text, _, flags),) = service.calls_of("CreateHomeEx")
    assert flags == 0
    return secret(text)


def test_create_sends_hash_and_plaintext_that_fit(service: Service) -> None:
    record = created(service)
    assert record["secret"] == {"password": ["new pw"]}
    privileged = record["privileged"]
    assert isinstance(privileged, dict)
    (hashed,) = privileged["hashedPassword"]
    assert hashed.startswith("$y$")
    assert crypt.verify("new pw", hashed)
    assert record["userName"] == "alice"
    assert record["disposition"] == "regular"
    assert record["lastChangeUSec"] == record["lastPasswordChangeUSec"]


def test_create_uses_the_hash_method_of_the_environment(service: Service) -> None:
    privileged = created(service, SYSTEMD_CRYPT_PREFIX="$6$")["privileged"]
    assert isinstance(privileged, dict)
    assert privileged["hashedPassword"][0].startswith("$6$")


def test_create_sends_blobs_as_descriptors(service: Service, tmp_path: Path) -> None:
    (tmp_path / "picture").write_text("a face")
    service.start()
    homemgr(
        "create", "alice", f"--avatar={tmp_path}/picture", f"-bx.txt={tmp_path}/picture",
        service=service, NEWPASSWORD="new pw",
    )  # fmt: skip
    ((_, blobs, _),) = service.calls_of("CreateHomeEx")
    assert blobs == {"avatar": "a face", "x.txt": "a face"}


def test_create_with_realm_in_the_name(service: Service) -> None:
    service.start()
    homemgr("create", "alice@example.com", service=service, NEWPASSWORD="new pw")
    record = secret(service.calls_of("CreateHomeEx")[0][0])
    assert (record["userName"], record["realm"]) == ("alice", "example.com")


def test_create_from_an_identity_drops_what_belongs_to_the_other_machine(service: Service) -> None:
    service.start()
    text = json.dumps(RECORD)
    done = homemgr("create", "-i-", service=service, stdin=text, PASSWORD="known")
    assert done.stderr == ""
    record = secret(service.calls_of("CreateHomeEx")[0][0])
    assert not {"binding", "status", "signature"} & set(record)
    assert record["x.unknown"] == RECORD["x.unknown"]
    assert record["privileged"] == RECORD["privileged"]
    assert record["lastChangeUSec"] == 1
    assert record["secret"] == {"password": ["known"]}


def test_create_without_seize_keeps_the_signature(service: Service) -> None:
    service.start()
    homemgr("create", "--seize=no", "-i-", service=service, stdin=json.dumps(RECORD), PASSWORD="x")
    assert "signature" in secret(service.calls_of("CreateHomeEx")[0][0])


def test_create_with_recovery_key_shows_it_once_and_sends_hash_and_key(service: Service) -> None:
    service.start()
    done = homemgr("create", "alice", "--recovery-key=yes", service=service, NEWPASSWORD="new pw")
    (key,) = [line.strip() for line in done.stderr.splitlines() if line.startswith("    ")]
    assert len(key) == 71
    record = secret(service.calls_of("CreateHomeEx")[0][0])
    assert record["secret"] == {"password": ["new pw", key]}
    assert record["recoveryKeyType"] == ["modhex64"]
    privileged = record["privileged"]
    assert isinstance(privileged, dict)
    assert crypt.verify(key, privileged["recoveryKey"][0]["hashedPassword"])
    assert len(privileged["hashedPassword"]) == 1


def test_a_recovery_key_is_written_to_a_new_file_only(service: Service, tmp_path: Path) -> None:
    service.start()
    words = ["create", "alice", f"--recovery-key-file={tmp_path / 'key'}"]
    done = homemgr(*words, service=service, NEWPASSWORD="new pw")
    assert "needs --recovery-key=yes" in done.stderr
    words.append("--recovery-key=yes")
    done = homemgr(*words, service=service, NEWPASSWORD="new pw")
    assert (done.returncode, done.stderr) == (0, "")
    key = (tmp_path / "key").read_text().strip()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    record = secret(service.calls_of("CreateHomeEx")[0][0])
    assert record["secret"] == {"password": ["new pw", key]}
    # A file that is there is somebody's, and no home is made whose key was not written.
    done = homemgr(*words, service=service, NEWPASSWORD="new pw")
    assert "File exists" in done.stderr
    assert len(service.calls_of("CreateHomeEx")) == 1


def test_weak_password_without_a_terminal_fails_with_the_reason(service: Service) -> None:
    service.start(CreateHomeEx=[error("LowPasswordQuality", "It is too short.")])
    done = homemgr("create", "alice", "--no-ask-password", service=service, NEWPASSWORD="x")
    assert done.returncode == 1
    assert "It is too short." in done.stderr


def test_create_dry_run_sends_nothing(service: Service) -> None:
    service.start()
    words, asked = ["create", "alice"], {"NEWPASSWORD": "new pw"}
    for done in (
        homemgr(*words, service=service, SYSTEMD_HOME_DRY_RUN="1", **asked),
        homemgr(*words, "--dry-run", service=service, **asked),
    ):
        assert json.loads(done.stderr)["userName"] == "alice"
        assert "new pw" not in done.stderr
        assert done.returncode == 0
    assert service.calls == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "."),
        ("[]", "object"),
        ('{"userName": "a", "x": 1.5}', ".x"),
        ('{"a":1,"a":2}', ".a"),
        ('{"userName": 5}', ".userName"),
        ('{"userName": "a", "privileged": []}', ".privileged"),
        ('{"userName": "a", "perMachine": [5]}', ".perMachine[0]"),
        ('{"userName": "a", "secret": "pw"}', ".secret"),
    ],
)
def test_a_bad_identity_is_refused_with_the_place(service: Service, text: str, reason: str) -> None:
    service.start()
    done = homemgr("create", "--identity=-", service=service, stdin=text, NEWPASSWORD="x")
    assert done.returncode == 1
    assert "--identity=-: " in done.stderr
    assert reason in done.stderr
    assert service.calls == []


# --- update ------------------------------------------------------------


def test_update_sends_everything_back_but_what_the_service_makes(service: Service) -> None:
    service.start(GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]])
    done = homemgr("update", "alice", "--real-name=A", service=service, PASSWORD="pw")
    assert (done.returncode, done.stderr) == (0, "")
    ((text, _, flags),) = service.calls_of("UpdateHomeEx")
    record = secret(text)
    assert flags == 0
    assert not {"binding", "status", "signature", "blobManifest"} & set(record)
    assert record["realName"] == "A"
    assert record["x.unknown"] == RECORD["x.unknown"]
    assert int(str(record["lastChangeUSec"])) > 1
    assert record["secret"] == {"password": ["pw"]}


def test_update_sends_all_existing_blobs(service: Service, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs" / "alice"
    blobs.mkdir(parents=True)
    (blobs / "avatar").write_text("a face")
    (blobs / "login-background").write_text("a beach")
    service.start(GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]])
    homemgr(
        "update", "alice", "--login-background=", service=service,
        SYSTEMD_HOME_SYSTEM_BLOB_DIR=str(tmp_path / "blobs"),
    )  # fmt: skip
    ((_, sent, _),) = service.calls_of("UpdateHomeEx")
    assert sent == {"avatar": "a face"}


def test_update_offline_sets_the_flag(service: Service) -> None:
    service.start(GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]])
    homemgr("update", "alice", "--offline", "-cA", service=service)
    assert service.calls_of("UpdateHomeEx")[0][2] == 1


def test_update_with_a_size_applies_it(service: Service) -> None:
    service.start(GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]])
    homemgr("update", "alice", "--disk-size=1G", service=service, PASSWORD="pw")
    ((user, size, text),) = service.calls_of("ResizeHome")
    assert (user, size, secret(text)) == ("alice", (1 << 64) - 1, {"password": ["pw"]})


def test_update_with_a_size_that_the_service_cannot_apply_says_what_was_done(
    service: Service,
) -> None:
    service.start(
        GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]],
        ResizeHome=[error("org.freedesktop.DBus.Error.NotSupported", "It has no size.")],
    )
    done = homemgr("update", "alice", "--disk-size=1G", service=service, PASSWORD="pw")
    assert done.returncode == 1
    assert "alice is updated, but ResizeHome failed: It has no size." in done.stderr


def test_update_of_an_incomplete_record_is_refused(service: Service) -> None:
    service.start(GetUserRecordByName=[[json.dumps(RECORD), True, "/x"]])
    done = homemgr("update", "alice", "-cA", service=service)
    assert done.returncode == 1
    assert "see the whole record" in done.stderr
    assert service.calls_of("UpdateHomeEx") == []


def test_update_without_a_change_is_refused(service: Service) -> None:
    service.start()
    done = homemgr("update", "alice", service=service)
    assert done.returncode == 1
    assert "No field to change" in done.stderr


def test_update_for_another_user_than_the_identity_is_refused(service: Service) -> None:
    service.start()
    done = homemgr("update", "bob", "-i-", service=service, stdin=json.dumps(RECORD))
    assert done.returncode == 1
    assert "is for alice, not for bob" in done.stderr


# --- passwd ------------------------------------------------------------


def test_passwd_sends_new_and_old_secret(service: Service) -> None:
    service.start()
    done = homemgr("passwd", "alice", service=service, NEWPASSWORD="new", PASSWORD="old")
    assert (done.returncode, done.stderr) == (0, "")
    ((user, new, old),) = service.calls_of("ChangePasswordHome")
    assert user == "alice"
    assert (secret(new), secret(old)) == ({"password": ["new"]}, {"password": ["old"]})


def test_passwd_gives_up_when_a_token_is_missing(service: Service) -> None:
    service.start(ChangePasswordHome=[error("BadPasswordAndNoToken", "No token.")])
    done = homemgr("passwd", "alice", service=service, NEWPASSWORD="new")
    assert done.returncode == 1
    assert len(service.calls_of("ChangePasswordHome")) == 1


# --- inspect ------------------------------------------------------------


def test_inspect_for_people_shows_name_and_state_but_no_hash(service: Service) -> None:
    with open("/etc/machine-id", encoding="ascii") as file:
        machine = file.read().strip()
    record = RECORD | {"status": {machine: {"state": "inactive"}}, "binding": {machine: {"uid": 5}}}
    service.start(GetUserRecordByName=[[json.dumps(record), False, "/x"]])
    done = homemgr("inspect", "alice", service=service)
    assert done.stderr == ""
    facts = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines())
    assert facts["User name"] == "alice"
    assert facts["State"] == "inactive"
    assert facts["UID"] == "5"
    assert facts["Passwords"] == "1"
    assert "$y$" not in done.stdout


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (["--json=short"], set()),
        (["-E"], {"binding", "status"}),
        (["-EE"], {"binding", "status", "signature"}),
        (["-j", "--export-format=minimal"], {"binding", "status", "signature"}),
    ],
)
def test_inspect_json_leaves_out_what_the_format_says(
    service: Service, options: list[str], missing: set[str]
) -> None:
    service.start(GetUserRecordByName=[[json.dumps(RECORD), False, "/x"]])
    done = homemgr("inspect", *options, "alice", service=service)
    assert set(json.loads(done.stdout)) == set(RECORD) - missing


def test_inspect_a_number_asks_by_uid(service: Service) -> None:
    service.start(GetUserRecordByUID=[[json.dumps(RECORD), False, "/x"]])
    assert homemgr("inspect", "60456", "-j", service=service).returncode == 0
    assert service.calls_of("GetUserRecordByUID") == [[60456]]


def test_inspect_a_number_that_is_no_uid_is_refused(service: Service) -> None:
    service.start()
    done = homemgr("inspect", "99999999999", service=service)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# --- failures without a service ------------------------------------------------------------


def test_a_missing_bus_is_explained() -> None:
    done = homemgr("list", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus")
    assert done.returncode == 1
    assert "homemgr: The bus at unix:path=/nonexistent/bus cannot be reached" in done.stderr


def test_a_missing_service_is_explained(service: Service) -> None:
    done = homemgr("list", service=service)
    assert done.returncode == 1
    assert "homemgr setup" in done.stderr


def test_control_characters_of_a_message_do_not_reach_the_terminal(service: Service) -> None:
    service.start(ListHomes=[error("NoSuchHome", "a\x1b[2Jb")])
    assert "\x1b" not in homemgr("list", service=service).stderr
