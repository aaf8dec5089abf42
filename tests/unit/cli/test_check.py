"""`homemgr check` and `repair` against a scripted service: what they send, print and return."""

from __future__ import annotations

import json

from homemgr.record.findings import Finding

from .conftest import Service, error, homemgr

BAD = Finding("inside-unreadable", "/x/.identity", "Cut off.", can_repair=True)


def answer(*found: Finding) -> list[object]:
    """What the service gives."""
    return [json.dumps([one.to_json("alice") for one in found])]


def test_nothing_wrong_is_silence_and_zero(service: Service) -> None:
    service.start(CheckHomes=[answer()])
    done = homemgr("check", service=service)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert service.calls_of("CheckHomes") == [[""]]


def test_finding_is_told_with_code_object_and_what_to_do(service: Service) -> None:
    service.start(CheckHomes=[answer(BAD, Finding("image-missing", "/y\x1b[2J"))])
    done = homemgr("check", "alice", service=service)
    assert done.returncode == 1
    assert done.stdout == (
        "alice: inside-unreadable: /x/.identity\n"
        "    The file in the place of the home's record is no user record. Cut off.\n"
        "    `homemgr repair` keeps it aside and writes the host copy there.\n"
        "alice: image-missing: /y [2J\n"
        "    The files of the home are not there.\n"
        "    Attach the disk that holds them.\n"
    )


def test_user_who_cannot_be_checked_does_not_stop_the_others(service: Service) -> None:
    service.start(CheckHomes=[error("NoSuchHome", "No home bob."), answer()])
    done = homemgr("check", "bob", "alice", service=service)
    assert done.returncode == 2
    assert "Cannot check bob: No home bob." in done.stderr
    assert service.calls_of("CheckHomes") == [["bob"], ["alice"]]


def test_dry_run_only_checks(service: Service) -> None:
    service.start(CheckHomes=[answer(BAD)])
    assert homemgr("repair", "--dry-run", "alice", service=service).returncode == 1
    assert service.calls_of("RepairHomes") == []


def test_repair_succeeds_if_nothing_is_left_to_do(service: Service) -> None:
    mended = BAD._replace(done="writes it")
    failed = BAD._replace(failed="The disk is full.")
    service.start(RepairHomes=[answer(mended), answer(mended, failed)])
    done = homemgr("repair", "alice", service=service)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "    Repaired: writes it.")
    done = homemgr("repair", "alice", service=service)
    assert done.returncode == 1
    assert "    Could not be repaired: The disk is full.\n" in done.stdout


def test_json_is_what_the_service_gives(service: Service) -> None:
    service.start(CheckHomes=[answer(BAD)])
    done = homemgr("check", "--json=short", service=service)
    assert json.loads(done.stdout) == [BAD.to_json("alice")]
