"""`homemgr convert --classic`: what is asked of the service, and what people are told."""

from __future__ import annotations

import json

import pytest

from .conftest import Service, homemgr

RESULT = {
    "user": "bob",
    "uid": 1000,
    "home": "/home/bob",
    "imagePath": "/home/.homemgr/bob.homedir",
    "memberOf": ["audio", "work"],
    "files": 1200,
    "bytes": 5 << 20,
    "report": {
        "counts": {"owner-changed": 1},
        "notes": [{"kind": "owner-changed", "path": "x", "detail": "uid 0"}],
    },
}
PLAN = [
    "Uid 1000 and the password stay; the files lie at /home/.homemgr/bob.homedir.",
    "Groups from the record: audio, work.",
    "WHAT\tWHERE\tDETAIL",
    "owner changed\t~/x\tuid 0",
]


@pytest.mark.parametrize(
    ("options", "flags", "first", "last"),
    [
        ((), 0, "bob is a home area from here on: 1,200 files, 5.0 MiB.", "--undo bob` takes it"),
        (("--dry-run",), 1, "bob can become a home area: 1,200 files, 5.0 MiB.", "uid 0"),
    ],
)
def test_it_is_told_what_becomes_of_an_account(
    service: Service, options: tuple[str, ...], flags: int, first: str, last: str
) -> None:
    service.start(**{"ConvertAccount job": [{"result": RESULT}]})
    done = homemgr("convert", "--classic", *options, "bob", service=service)
    assert (done.returncode, done.stderr) == (0, "")
    assert service.calls_of("ConvertAccount") == [["bob", flags]]
    lines = done.stdout.splitlines()
    assert lines[0] == first
    assert lines[1:5] == PLAN
    assert last in lines[-1]


def test_programs_get_all_of_it(service: Service) -> None:
    service.start(**{"ConvertAccount job": [{"result": RESULT}]})
    done = homemgr("convert", "--classic", "bob", "--json=short", service=service)
    assert json.loads(done.stdout) == RESULT


def test_undo_tells_of_groups_that_are_gone(service: Service) -> None:
    result = {**RESULT, "lost_groups": ["work"], "report": {"counts": {}, "notes": []}}
    service.start(**{"UndoAccountConversion job": [{"result": result}]})
    done = homemgr("convert", "--classic", "--undo", "bob", service=service)
    assert done.stdout.splitlines() == [
        "bob is a classic account again, with the files in /home/bob.",
        "Group work is gone, so bob is not in it again.",
    ]


def test_confirm_and_a_refusal(service: Service) -> None:
    not_found = "org.freedesktop.DBus.Error.FileNotFound"
    refusal = {"error": not_found, "message": "No conversion of bob."}
    service.start(ConfirmAccountConversion=[[], refusal])
    done = homemgr("convert", "--classic", "--confirm", "bob", service=service)
    assert done.stdout.splitlines() == [
        "bob stays a home area: its conversion can no longer be undone."
    ]
    done = homemgr("convert", "--classic", "--confirm", "bob", service=service)
    assert done.returncode == 1
    assert "No conversion of bob." in done.stderr
    assert "bus" not in done.stderr


def test_what_can_be_undone_is_listed(service: Service) -> None:
    until = 1_800_000_000_000_000
    item = {"user": "bob", "phase": "converted", "home": "/home/bob", "image": "/i", "until": until}
    service.start(ListAccountConversions=[[json.dumps([item])], [json.dumps([item])]])
    done = homemgr("convert", "--classic", service=service)
    *_, line = done.stdout.splitlines()
    user, phase, was, now, day = line.split("\t")
    assert (user, phase, was, now) == ("bob", "converted", "/home/bob", "/i")
    assert day.startswith("2027-01-1")
    done = homemgr("convert", "--classic", "--json=short", service=service)
    assert json.loads(done.stdout) == [item]


def test_a_service_that_ends_is_explained(service: Service) -> None:
    service.start(**{"ConvertAccount job": [{"dies": True}]})
    done = homemgr("convert", "--classic", "bob", service=service)
    assert done.returncode == 1
    assert "is finished, or taken back, when it starts again" in done.stderr


@pytest.mark.parametrize(
    "words", [("bob",), ("--classic", "--undo", "--confirm", "bob"), ("--classic", "--undo")]
)
def test_a_wrong_command_line_is_two(service: Service, words: tuple[str, ...]) -> None:
    service.start()
    assert homemgr("convert", *words, service=service).returncode == 2
    assert service.calls == []
