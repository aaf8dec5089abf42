"""`homemgr convert`: what the service is asked, what people are told, what makes no sense."""

from __future__ import annotations

import json

import pytest

from homemgr.errors import HOME1

from .conftest import Service, homemgr

RESULT = {
    "files": 12,
    "bytes": 2 << 20,
    "phase": "kept",
    "storage": "directory",
    "image_path": "/home/.homemgr/alice.homedir",
    "report": {"counts": {"socket-skipped": 1}, "notes": []},
}
KEPT = [
    {
        "user": "alice",
        "phase": "kept",
        "when": 1,
        "is_used": True,
        "old": {"storage": "luks", "image_path": "/home/.homemgr/alice.home"},
        "new": {"storage": "directory", "image_path": "/home/.homemgr/alice.homedir"},
    }
]


def test_it_says_what_became_of_the_home_and_what_is_kept(service: Service) -> None:
    service.start(**{"ConvertHome job": [{"result": RESULT}]})
    words = ("--storage=directory", "--to=/srv/alice.homedir", "--disk-size=1G")
    done = homemgr("convert", "alice", *words, service=service, PASSWORD="secret word")
    assert (done.returncode, done.stderr) == (0, "")
    ((user, options, secret),) = service.calls_of("ConvertHome")
    asked = {"storage": "directory", "to": "/srv/alice.homedir", "disk_size": 1 << 30}
    assert (user, json.loads(str(options))) == ("alice", asked)
    assert json.loads(str(secret)) == {"password": ["secret word"]}
    first, *_, plain, last = done.stdout.splitlines()
    assert first == (
        "alice has storage directory now, in /home/.homemgr/alice.homedir: 12 files, 2.0 MiB."
    )
    assert plain == "It is not encrypted."
    assert "homemgr convert --confirm alice" in last


def test_it_says_what_stays_where_it_was(service: Service) -> None:
    stick = "/dev/disk/by-uuid/0b9f0c0a-3f4e-4d68-9d2b-2f3d5c1f7a11"
    service.start(**{"ConvertHome job": [{"result": {**RESULT, "stays_at": stick}}]})
    done = homemgr("convert", "alice", "--storage=directory", service=service)
    last = done.stdout.splitlines()[-1]
    assert last == (
        f"The home as it was before stays on {stick}, also after `homemgr convert --confirm alice`;"
        " until then `--undo` brings it back."
    )


def test_what_is_missing_is_asked_for_and_without_anybody_to_ask_it_fails(
    service: Service,
) -> None:
    service.start(
        **{"ConvertHome job": [{"error": HOME1 + "BadPassword", "message": "None was given."}]}
    )
    done = homemgr("convert", "alice", "--storage=luks", "--no-ask-password", service=service)
    assert done.returncode == 1
    assert "Cannot convert home alice" in done.stderr
    assert done.stdout == ""


def test_it_is_confirmed_undone_and_listed(service: Service) -> None:
    service.start(ListConversions=[[json.dumps(KEPT)]])
    assert homemgr("convert", "alice", "--confirm", service=service).returncode == 0
    assert homemgr("convert", "alice", "--undo", "--force", service=service).returncode == 0
    assert service.calls_of("ConfirmConversion") == [["alice"]]
    assert service.calls_of("UndoConversion") == [["alice", '{"force": true}']]
    done = homemgr("convert", service=service)
    assert done.stdout.splitlines() == [
        "USER\tPHASE\tWAS\tIS\tIMAGE\tUSED",
        "alice\tkept\tluks\tdirectory\t/home/.homemgr/alice.homedir\tyes",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("alice",),
        ("alice", "--disk-size=1G"),
        ("alice", "--storage=luks", "--disk-size=large"),
        ("alice", "--confirm", "--undo"),
        ("alice", "--storage=luks", "--undo"),
        ("alice", "--storage=luks", "--force"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    service: Service, words: tuple[str, ...]
) -> None:
    service.start()
    assert homemgr("convert", *words, service=service).returncode == 2
    assert service.calls_of("ConvertHome") == []
