"""Words and options: how they are read, what is refused, what help says, what start-up costs."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.cli.arguments import Option, UsageError, parse
from homemgr.cli.verb_table import COMMON, VERBS, load

from .conftest import REPOSITORY, RUN, Service, environment, error, homemgr

OPTIONS = (
    Option("real-name", "c", "NAME"),
    Option("realm", "", "REALM"),
    Option("quiet", "q"),
    Option("", "P"),
    Option("member-of", "G", "GROUP"),
)


@pytest.mark.parametrize(
    "argv",
    [
        ["--real-name=A B", "alice"],
        ["--real-name", "A B", "alice"],
        ["alice", "--real-n=A B"],
        ["-cA B", "alice"],
        ["alice", "-c", "A B"],
        ["-qPcA B", "--", "alice"],
    ],
)
def test_every_way_to_give_an_option(argv: list[str]) -> None:
    found = parse(argv, OPTIONS)
    assert found.words == ["alice"]
    assert found.value("real-name") == found.value("c") == "A B"


def test_after_two_dashes_everything_is_a_word() -> None:
    assert parse(["-q", "--", "-q", "--x"], OPTIONS).words == ["-q", "--x"]


def test_after_the_last_word_everything_belongs_to_the_command() -> None:
    found = parse(["-q", "alice", "ls", "-l", "--", "-q"], OPTIONS, 1)
    assert found.words == ["alice", "ls", "-l", "--", "-q"]
    assert found.count("quiet") == 1


def test_a_single_dash_is_a_word() -> None:
    assert parse(["-"], OPTIONS).words == ["-"]


def test_an_empty_value_is_a_value() -> None:
    found = parse(["--realm="], OPTIONS)
    assert found.has("realm")
    assert found.value("realm", "default") == ""


def test_the_last_value_wins_and_all_are_counted() -> None:
    found = parse(["-Ga", "-Gb"], OPTIONS)
    assert found.value("member-of") == "b"
    assert found.count("G") == 2


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--nonsense"], "Unknown option --nonsense."),
        (["-x"], "Unknown option -x."),
        (["-qx"], "Unknown option -x."),
        (["--real=x"], "ambiguous: --real-name, --realm"),
        (["--quiet=yes"], "--quiet takes no value"),
        (["--realm"], "--realm needs a value (REALM)"),
        (["-G"], "--member-of needs a value (GROUP)"),
        (["--=x"], "Unknown option --."),
    ],
)
def test_what_makes_no_sense_is_named(argv: list[str], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv, OPTIONS)
    assert reason in str(caught.value)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_command_line_is_read_or_refused(argv: list[str]) -> None:
    try:
        found = parse(argv, OPTIONS)
    except UsageError:
        return
    assert len(found.words) <= len(argv)


def test_every_verb_has_its_module_and_help() -> None:
    for name, verb in VERBS.items():
        module = load(verb.module)
        assert callable(module.run)
        assert verb.help, name
        letters = "".join(o.short for o in (*COMMON, *module.OPTIONS))
        assert len(letters) == len(set(letters)), name


def test_help_names_every_verb() -> None:
    done = homemgr("--help")
    assert done.returncode == 0
    for name in VERBS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(VERBS))
def test_help_of_a_verb_names_its_options(name: str) -> None:
    done = homemgr(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in load(VERBS[name].module).OPTIONS:
        assert option.shown in done.stdout


def test_version_is_one_line() -> None:
    done = homemgr("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("homemgr ")


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        (["nonsense"], 1, "Unknown verb nonsense."),
        (["activate"], 1, "Expected `homemgr activate USER...`."),
        (["list", "alice"], 1, "Expected `homemgr list`."),
        (["list", "--nonsense"], 1, "Unknown option --nonsense."),
        (["activate", "--shell=/bin/sh", "x"], 1, "Unknown option --shell."),
        (["list", "--json=xml"], 1, "expected pretty, short or off"),
        (["list", "-H", "there"], 1, "ssh HOST homemgr"),
        (["inspect", "-EEE", "x"], 1, "-E more than twice"),
        (["create", "--identity=/nonexistent"], 1, "/nonexistent: No such file"),
        (["create"], 1, "A user name is required."),
        (["create", "--seize=maybe", "x"], 1, "--seize=maybe: expected yes or no"),
        # Verbs that homectl does not have follow the usual custom.
        (["setup", "--nonsense"], 2, "Unknown option --nonsense."),
        (["setup", "--programs=bin"], 2, "expected an absolute path"),
        (["demo", "now"], 2, "Expected `homemgr demo`."),
    ],
)
def test_wrong_command_lines(argv: list[str], code: int, reason: str) -> None:
    done = homemgr(*argv)
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_options_of_a_verb_may_stand_before_it() -> None:
    done = homemgr("--real-name", "A", "-P", "create", "alice", "--umask=x")
    assert "--umask=x: expected a mode" in done.stderr


def test_a_bug_is_one_line_and_more_only_on_request() -> None:
    # What any unexpected exception does, seen through the hook main() installs.
    program = "from homemgr.cli.main import main; main(['--version']); raise TypeError('oops')"
    for debug in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(HOMEMGR_DEBUG=debug),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == (debug == "1")
        assert "oops" in done.stderr


def test_a_full_disk_under_the_output_is_no_traceback() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*RUN, "--help"], env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert b"Traceback" not in done.stderr
    assert done.returncode != 0


def test_a_closed_output_is_no_failure() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *RUN, "--help"],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


SLOW_MODULES = ("asyncio", "argparse", "dbus_next", "json", "pathlib", "dataclasses", "subprocess",
                "ctypes", "cryptography")  # fmt: skip


def loaded(among: tuple[str, ...], *arguments: str) -> list[str]:
    """Which modules a command line has loaded by the time it finds that there is no service."""
    program = (
        f"import sys; from homemgr.cli.main import main; main({list(arguments)!r});"
        f"print(*(m for m in {among!r} if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    (complaint, _hint, modules) = done.stderr.splitlines()
    assert "cannot be reached" in complaint
    return modules.split()


def test_list_loads_nothing_slow() -> None:
    assert loaded(SLOW_MODULES, "list") == []


def test_who_is_waited_for_on_another_machine_loads_nothing_slow_before_it_begins() -> None:
    slow = {*SLOW_MODULES, "socket", "signal", "datetime", "hashlib", "typing"} - {"json"}
    assert loaded(tuple(slow), "transfer", "receive", "alice") == []


def test_list_starts_within_a_few_bare_interpreters() -> None:
    """Processor time, best of several, as a ratio: the machine may be busy or slow."""

    def cost(*argv: str) -> float:
        best = 1e9
        for _ in range(7):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                argv,
                env=environment(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent"),
                cwd=REPOSITORY,
                capture_output=True,
                check=False,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            best = min(best, spent)
        return best

    bare = cost(sys.executable, "-c", "pass")
    ours = cost(*RUN, "list")
    assert ours <= 3.2 * bare


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["activate", "\udcff"], r"'\udcff' is not UTF-8"),
        (["create", "alice", "--real-name=\udcff"], "expected text in UTF-8"),
        (["create", "alice", "--setenv=A=\udcff"], "expected text in UTF-8"),
        (["create", "alice", "--ssh-authorized-keys=@/bin/ls"], "expected a file in UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_name(arguments: list[str], said: str) -> None:
    done = homemgr(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_number_too_large_for_a_uid_is_a_name(service: Service) -> None:
    service.start(GetUserRecordByName=[error("NoSuchHome", "No such home.")])
    done = homemgr("inspect", "99999999999999999999", service=service)
    assert (done.returncode, service.calls[0]["member"]) == (1, "GetUserRecordByName")
