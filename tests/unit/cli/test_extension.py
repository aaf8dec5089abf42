"""`homemgr extension` against a scripted service: what it sends, prints and returns."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import pty
import subprocess

import pytest

from .conftest import RUN, Service, environment, error, homemgr

INVENTORY = {
    "extensions": [
        {
            "name": "tools",
            "version": "2.1",
            "form": "image",
            "path": "/var/lib/homemgr/extensions/tools.raw.v/tools_2.1.raw",
            "usable": True,
            "reason": "",
            "hierarchies": [".local/bin"],
        },
        {
            "name": "old",
            "version": "",
            "form": "directory",
            "path": "/usr/lib/homemgr/extensions/old",
            "usable": False,
            "reason": "It was made for another system.",
            "hierarchies": [],
        },
    ]
}
STATUS = {
    "user": "alice",
    "active": True,
    "wanted": ["tools", "late"],
    "required": [],
    "chosen": [],
    "offered": ["extra"],
    "mutability": "yes",
    "merged": [".local/bin"],
    "problems": [],
    "extensions": [
        {
            "name": "tools",
            "version": "2.1",
            "path": "/x",
            "state": "merged",
            "hierarchies": [".local/bin"],
            "reasons": [],
        },
        {
            "name": "broken",
            "version": "",
            "path": "",
            "state": "skipped",
            "hierarchies": [],
            "reasons": ["There is no\textension broken."],
        },
    ],
}
CHANGES = {
    "extensions": {"extensions": [], "merged": [".local/bin"], "problems": []},
    "changes": [
        {"hierarchy": ".local/bin", "state": "applied", "reason": "", "holders": []},
        {
            "hierarchy": ".config",
            "state": "deferred",
            "reason": "It is in use.",
            "holders": ["vim[12]"],
        },
    ],
}
DIFFERENCES = {
    "differences": [
        {"hierarchy": ".local/bin", "path": "tool", "kind": "deleted", "extension": "tools"}
    ]
}


def all_of(controller: int) -> str:
    """What a terminal showed, once nobody writes on it any more: one read may come too early."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO is how a terminal says that its other end is closed
        while chunk := os.read(controller, 65536):
            shown += chunk
    os.close(controller)
    return shown.decode()


def on_terminal(service: Service, *arguments: str) -> str:
    """What the command line prints on a terminal of 80 columns."""
    controller, terminal = pty.openpty()
    with open(terminal, "wb", buffering=0) as out:
        subprocess.run(
            [*RUN, *arguments],
            env=environment(service, COLUMNS="80", TERM="dumb"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            check=True,
            timeout=60,
        )
    return all_of(controller).replace("\r\n", "\n")


PROGRESS = [
    ["ExtensionProgress", "ssstt", "alice", "open", "tools", 0, 2],
    ["ExtensionProgress", "ssstt", "bob", "open", "secret-of-bob", 0, 1],
    ["ExtensionProgress", "ssstt", "alice", "merge", ".local/\x1b[31mbin", 1, 2],
    ["ExtensionsChanged", "s", "alice"],
]


def refresh_with_stderr_on(terminal: int | None, service: Service, **more: str) -> None:
    """Run a refresh of alice's home, its messages on a terminal or into nothing."""
    subprocess.run(
        [*RUN, "extension", "refresh", "alice"],
        env=environment(service, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if terminal is None else terminal,
        check=True,
        timeout=60,
    )


def test_refresh_shows_its_steps_on_a_terminal_and_takes_them_away(service: Service) -> None:
    answer = json.dumps({"changes": []})
    service.start(RefreshExtensions=[[answer]], **{"RefreshExtensions tells": PROGRESS})
    controller, terminal = pty.openpty()
    try:
        refresh_with_stderr_on(terminal, service, TERM="xterm")
    finally:
        os.close(terminal)
    assert all_of(controller).split("\r\x1b[K") == [
        "",
        "Opening tools (0 of 2 done)",
        "Merging ~/.local/ [31mbin (1 of 2 done)",
        "",
    ]


def test_list_in_a_pipe_has_a_column_for_the_reason(service: Service) -> None:
    service.start(ListExtensions=[[json.dumps(INVENTORY)]])
    lines = homemgr("extension", "list", service=service).stdout.splitlines()
    assert lines[0].split("\t") == ["NAME", "VERSION", "FORM", "STATE", "PATH", "REASON"]
    assert lines[1].split("\t")[:4] == ["tools", "2.1", "image", "usable"]
    assert lines[2].split("\t")[3:] == [
        *("unusable", "/usr/lib/homemgr/extensions/old", "It was made for another system.")
    ]


def test_list_on_a_terminal_has_reasons_below(service: Service) -> None:
    service.start(ListExtensions=[[json.dumps(INVENTORY)]])
    lines = on_terminal(service, "extension", "list").splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "FORM", "STATE", "PATH"]
    assert lines[3] == "old: It was made for another system."
    assert lines[-1] == "2 extensions listed."


def test_json_is_the_answer_of_the_service(service: Service) -> None:
    service.start(ListExtensions=[[json.dumps(INVENTORY)]])
    done = homemgr("extension", "list", "--json=short", service=service)
    assert json.loads(done.stdout) == INVENTORY


def test_status_is_the_callers_own_unless_it_names_a_user(service: Service) -> None:
    service.start(GetExtensionStatus=[[json.dumps(STATUS)]])
    done = homemgr("extension", "status", service=service)
    homemgr("extension", "status", "alice", service=service)
    homemgr("extension", "status", "--user=bob", service=service)
    assert service.calls_of("GetExtensionStatus") == [[getpass.getuser()], ["alice"], ["bob"]]
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[2]) for row in rows] == [
        *(("extra", "offered"), ("tools", "merged"), ("late", "wanted"), ("broken", "skipped"))
    ]
    assert rows[1][3] == ".local/bin"
    assert rows[3][4] == "There is no extension broken."


def test_enable_and_disable_call_for_each_name(service: Service) -> None:
    service.start()
    done = homemgr("extension", "enable", "a", "b", "--user=alice", service=service)
    assert (done.returncode, done.stdout) == (0, "")
    homemgr("extension", "disable", "a", service=service)
    assert service.calls_of("EnableExtension") == [["alice", "a"], ["alice", "b"]]
    assert service.calls_of("DisableExtension") == [[getpass.getuser(), "a"]]


def test_a_refusal_is_told_as_the_service_words_it(service: Service) -> None:
    service.start(EnableExtension=[error("org.freedesktop.DBus.Error.AccessDenied", "Not yours.")])
    done = homemgr("extension", "enable", "a", service=service)
    assert done.returncode == 1
    assert "homemgr: Not yours." in done.stderr


@pytest.mark.parametrize(("options", "flags"), [([], 0), (["--force"], 1)])
def test_refresh_tells_what_waits_and_for_whom(
    service: Service, options: list[str], flags: int
) -> None:
    service.start(RefreshExtensions=[[json.dumps(CHANGES)]])
    done = homemgr("extension", "refresh", "alice", *options, service=service)
    assert done.returncode == 0
    assert service.calls_of("RefreshExtensions") == [["alice", flags]]
    assert done.stdout.splitlines()[1:] == [
        "~/.local/bin\tapplied\t-\t-",
        "~/.config\tdeferred\tvim[12]\tIt is in use.",
    ]


def test_a_refresh_that_failed_is_a_failure(service: Service) -> None:
    failed = {"hierarchy": ".x", "state": "failed", "reason": "No space.", "holders": []}
    service.start(RefreshExtensions=[[json.dumps({"changes": [failed], "extensions": {}})]])
    done = homemgr("extension", "refresh", "alice", service=service)
    assert done.returncode == 1
    assert "No space." in done.stdout


def test_a_refresh_says_what_is_skipped(service: Service) -> None:
    answer = {"changes": [], "extensions": {"extensions": STATUS["extensions"]}}
    service.start(RefreshExtensions=[[json.dumps(answer)]])
    done = homemgr("extension", "refresh", "alice", service=service)
    assert done.stderr == "homemgr: There is no extension broken.\n"


def test_diff_prints_paths_as_discard_takes_them(service: Service) -> None:
    service.start(
        GetExtensionDifferences=[[json.dumps(DIFFERENCES)]],
        DiscardExtensionChanges=[[json.dumps({"discarded": [".local/bin/tool"]})]],
    )
    shown = homemgr("extension", "diff", "--no-legend", service=service).stdout
    assert shown == "deleted\t.local/bin/tool\ttools\n"
    user, home = getpass.getuser(), os.path.expanduser(f"~{getpass.getuser()}")
    done = homemgr("extension", "discard", f"{home}/.local/bin/tool", service=service)
    assert (done.returncode, done.stdout) == (0, ".local/bin/tool\n")
    assert service.calls_of("DiscardExtensionChanges") == [[user, [".local/bin/tool"], 0]]


def test_discard_without_paths_is_for_all_and_says_what_it_did_not_find(service: Service) -> None:
    service.start(DiscardExtensionChanges=[[json.dumps({"discarded": []})]])
    assert homemgr("extension", "discard", "--changed", service=service).returncode == 0
    done = homemgr("extension", "discard", "a/b", service=service)
    assert done.returncode == 1
    assert "~/a/b: nothing to discard" in done.stderr
    assert [call[1:] for call in service.calls_of("DiscardExtensionChanges")] == [
        [[], 1],
        [["a/b"], 0],
    ]


def test_a_path_outside_the_home_is_refused_before_anything_is_asked(service: Service) -> None:
    service.start()
    done = homemgr("extension", "discard", "/etc/passwd", service=service)
    assert done.returncode == 2
    assert service.calls == []


def test_trust_prints_what_sha256sum_would(service: Service) -> None:
    service.start(
        TrustExtension=[[json.dumps({"trusted": [{"path": "/x/a.raw", "sha256": "ab" * 32}]})]],
        DistrustExtension=[[json.dumps({"distrusted": ["/x/a.raw"]})]],
    )
    shown = homemgr("extension", "trust", "a", service=service).stdout
    assert shown == f"{'ab' * 32}  /x/a.raw\n"
    assert homemgr("extension", "distrust", "a", service=service).stdout == "/x/a.raw\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["list", "alice"],
        ["enable"],
        ["trust"],
        ["status", "a", "b"],
        ["status", "a", "--user=b"],
        ["list", "--force"],
        ["refresh", "--changed"],
    ],
)
def test_wrong_command_lines_end_with_2(arguments: list[str]) -> None:
    done = homemgr("extension", *arguments)
    assert done.returncode == 2
    assert "See `homemgr extension --help`." in done.stderr
