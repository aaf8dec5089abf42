"""What is shown of a home: status members, its group, its memberships."""

from __future__ import annotations

from record_samples import MACHINE_ID

from homemgr.record import status
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord

HERE = Machine(MACHINE_ID)
RECORD = UserRecord(
    {
        "userName": "alice",
        "disposition": "regular",
        "memberOf": ["users", "alice", "audio"],
        "binding": {MACHINE_ID: {"uid": 60001, "gid": 60001, "homeDirectory": "/home/alice"}},
        "status": {MACHINE_ID: {"goodAuthenticationCounter": 7}},
    }
)
SHELL = "/usr/bin/systemd-home-fallback-shell"


def test_an_inactive_home_keeps_its_path_and_gets_the_fallback_shell() -> None:
    # homed shows "/" here; the real path lets programs find the home they wait for.
    members = status.synthesize(
        RECORD.on(HERE), state="inactive", is_active=False, is_signed_locally=True,
        fallback_shell=SHELL,
    )  # fmt: skip
    assert members == {
        "state": "inactive",
        "service": "io.systemd.Home",
        "useFallback": True,
        "signedLocally": True,
        "fallbackShell": SHELL,
        "fallbackHomeDirectory": "/home/alice",
    }


def test_an_active_home_does_not_use_the_fallback() -> None:
    members = status.synthesize(
        RECORD.on(HERE), state="active", is_active=True, fallback_shell=SHELL
    )
    assert members["useFallback"] is False
    assert members["fallbackShell"] == SHELL
    assert "signedLocally" not in members


def test_without_fallback_shell_there_is_no_fallback() -> None:
    members = status.synthesize(RECORD.on(HERE), state="absent", is_active=False)
    assert members == {"state": "absent", "service": "io.systemd.Home", "useFallback": True}


def test_disk_figures_only_as_far_as_known() -> None:
    members = status.synthesize(
        RECORD.on(HERE), state="active", is_active=True, figures={"diskFree": 5, "diskUsage": None}
    )
    assert members["diskFree"] == 5
    assert "diskSize" not in members
    shown = RECORD.with_status(HERE.id, members).status(HERE.id)
    assert "diskUsage" not in shown


def test_stored_counters_stay_beside_it() -> None:
    members = status.synthesize(RECORD.on(HERE), state="active", is_active=True)
    shown = RECORD.with_status(MACHINE_ID, members).status(MACHINE_ID)
    assert shown["goodAuthenticationCounter"] == 7
    assert shown["service"] == "io.systemd.Home"


def test_group_record_has_what_clients_require() -> None:
    assert status.group_record(RECORD, HERE) == {
        "groupName": "alice",
        "description": "Primary Group of User alice",
        "disposition": "regular",
        "binding": {MACHINE_ID: {"gid": 60001}},
        "status": {MACHINE_ID: {"service": "io.systemd.Home"}},
    }


def test_group_of_a_user_with_realm_and_without_uid() -> None:
    record = UserRecord({"userName": "alice", "realm": "example.com"})
    group = status.group_record(record, HERE)
    assert group["realm"] == "example.com"
    assert "binding" not in group


def test_memberships_end_with_the_users_own_group_once() -> None:
    assert list(status.memberships(RECORD, HERE)) == [
        ("alice", "users"),
        ("alice", "audio"),
        ("alice", "alice"),
    ]
