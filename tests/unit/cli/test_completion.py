"""Completion scripts: every verb and option is in them, and shells complete with them for real."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from homemgr.cli.completion import kinds
from homemgr.cli.verb_table import COMMON, VERBS, load
from homemgr.cli.verbs.completion import SCRIPTS

from .conftest import homemgr

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.arguments import Option

#: What `homemgr list` and `list-signing-keys` print in a pipe, for the scripts to ask.
FAKE = """#!/bin/sh
case "$*" in
*list-signing-keys) printf 'local.public\\tff\\nother.public\\tee\\n' ;;
*list) printf 'alice\\t60001\\nalbert\\t60002\\nbob\\t60003\\n' ;;
esac
"""
#: A line that is typed, and what may stand in the place of its last word.
LINES = {
    ("deact",): ["deactivate", "deactivate-all"],
    ("inspect", "al"): ["albert", "alice"],
    ("lock", "alice", "b"): ["bob"],
    ("with", "b"): ["bob"],
    ("remove-signing-key", "o"): ["other.public"],
    ("--no-legend", "insp"): ["inspect"],
    ("create", "--real-name", "al", "--locke"): ["--locked="],
    ("update", "alice", "--locked", "="): ["no", "yes"],
    ("update", "alice", "--locked", "=", "y"): ["yes"],
    ("update", "alice", "--auto-resize-mode", "gr"): ["grow"],
    ("-j", "transfers", "for"): ["forget"],
    ("transfers", "forget", "al"): ["albert", "alice"],
    ("completion", ""): ["bash", "fish", "zsh"],
    ("demo", ""): [],
    ("create", "--real-name", "a"): [],
    ("repair", "--dr"): ["--dry-run"],
}


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], str]:
    """The path of a shell; the program that scripts ask is a fake one."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            reason = f"there is no {name}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    fake = tmp_path / "bin/homemgr"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return find


def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
    }


def every_option() -> set[Option]:
    return {option for v in VERBS.values() for option in (*COMMON, *load(v.module).OPTIONS)}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_verb_and_option_is_in_each_script(name: str) -> None:
    done = homemgr("completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    words = set(done.stdout.replace("'", " ").replace(":", " ").replace("=", " ").split())
    for verb in VERBS:
        assert verb in words | set(done.stdout.replace("|", " ").split()), verb
    for option in every_option():
        if option.name:
            spelled = f"--long-option {option.name}" if name == "fish" else f"--{option.name}"
            assert spelled in done.stdout, option.name


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_is_one_that_its_shell_reads(name: str, shell: Callable[[str], str]) -> None:
    argv = [shell(name), "-n", "/dev/stdin"]
    done = subprocess.run(argv, input=SCRIPTS[name](), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_bash_completes(line: tuple[str, ...], shell: Callable[[str], str], tmp_path: Path) -> None:
    script = tmp_path / "homemgr.bash"
    script.write_text(SCRIPTS["bash"]())
    program = 'source "$1"; shift; COMP_WORDS=(homemgr "$@") COMP_CWORD=$#; _homemgr homemgr; \
        printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        [shell("bash"), "--norc", "-c", program, "bash", str(script), *line],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.split()) == LINES[line]


def test_bash_completes_what_is_typed(shell: Callable[[str], str], tmp_path: Path) -> None:
    script = tmp_path / "homemgr.bash"
    script.write_text(SCRIPTS["bash"]())
    _complete_interactively(
        [shell("bash"), "--norc", "--noediting"][:2], f"source {script}", tmp_path
    )


def test_zsh_completes_what_is_typed(shell: Callable[[str], str], tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "_homemgr").write_text(SCRIPTS["zsh"]())
    begin = f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D"
    _complete_interactively([shell("zsh"), "-f"], begin, tmp_path)


def _complete_interactively(argv: list[str], begin: str, tmp_path: Path) -> None:
    """Type words half, and the key that completes them; what runs then has all of them."""
    (tmp_path / "bin/homemgr").write_text(FAKE + 'echo "<$*>"\n')
    typist: pexpect.spawn[str] = pexpect.spawn(
        argv[0],
        argv[1:],
        env=environment(tmp_path) | {"PS1": "ready> "},
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 200),
    )
    typist.delaybeforesend = None
    typist.expect_exact("ready> ")
    typist.sendline(f"{begin}; PS1='be''gun> '")
    typist.expect_exact("begun> ")
    for typed, run in (
        ("homemgr rebal\t\r", "<rebalance>"),
        ("homemgr inspect alb\t\r", "<inspect albert>"),
        ("homemgr update bo\t--auto-lo\ty\t\r", "<update bob --auto-login=yes>"),
    ):
        typist.send(typed)
        typist.expect_exact(run)
        typist.expect_exact("begun> ")
    typist.close(force=True)


@pytest.mark.parametrize("line", [line for line in LINES if "=" not in line], ids=" ".join)
def test_fish_completes(line: tuple[str, ...], shell: Callable[[str], str], tmp_path: Path) -> None:
    script = tmp_path / "homemgr.fish"
    script.write_text(SCRIPTS["fish"]())
    program = f"source {script}; complete --do-complete 'homemgr {' '.join(line)}'"
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", program],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    found = {word.partition("\t")[0] for word in done.stdout.splitlines()}
    # Fish has no equals sign for an option whose value may follow as well.
    wanted = {word.removesuffix("=") for word in LINES[line]}
    assert wanted <= found
    assert len(found) <= 4


def test_kinds_are_read_from_how_the_tables_call_things() -> None:
    found = {row.name: row for row in kinds.rows()}
    assert [kind.name for kind in found["migrate"].places] == [kinds.HOME, kinds.HOST]
    assert [kind.name for kind in found["export"].places] == [kinds.HOME, kinds.FILE]
    assert found["adopt"].places == (kinds.Kind(kinds.FILE),)
    assert found["adopt"].repeats
    assert not found["passwd"].repeats
    by_name = {option.name: kinds.of_option(option) for option in every_option()}
    assert by_name["shell"].name == kinds.FILE
    assert by_name["skel"].name == kinds.DIRECTORY
    assert by_name["member-of"].name == kinds.GROUP
    assert by_name["json"].words == ("pretty", "short", "off")
    assert by_name["real-name"].name == by_name["trust"].name == kinds.NOTHING
