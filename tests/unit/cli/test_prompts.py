"""Questions on a real terminal: no echo, asked as the service wants it, terminal left as it was."""

from __future__ import annotations

import json
import os
import signal
import sys
import termios
from typing import TYPE_CHECKING

import pexpect
import pytest

from .conftest import RUN, Service, environment, error

if TYPE_CHECKING:
    from collections.abc import Iterator

WRONG = error("BadPassword", "The password does not unlock this home area.")


@pytest.fixture
def terminals() -> Iterator[list[pexpect.spawn[str]]]:
    started: list[pexpect.spawn[str]] = []
    yield started
    for terminal in started:
        terminal.close(force=True)


def run(
    terminals: list[pexpect.spawn[str]], service: Service, *arguments: str, **variables: str
) -> pexpect.spawn[str]:
    variables.setdefault("TERM", "xterm")
    terminal: pexpect.spawn[str] = pexpect.spawn(
        RUN[0], [*RUN[1:], *arguments], env=environment(service, **variables),
        encoding="utf-8", timeout=20, dimensions=(24, 80),
    )  # fmt: skip
    terminal.delaybeforesend = None
    terminals.append(terminal)
    return terminal


def answer(terminal: pexpect.spawn[str], question: str, text: str) -> None:
    terminal.expect_exact(question)
    # The question comes after the echo was switched off, so nothing can slip through.
    terminal.sendline(text)


def finish(terminal: pexpect.spawn[str]) -> tuple[int | None, str]:
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus, str(terminal.before)


def passwords(text: object) -> list[str]:
    found = json.loads(str(text)).get("password", [])
    assert isinstance(found, list)
    return found


def test_password_is_asked_for_without_echo(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(ActivateHome=[WRONG, []])
    terminal = run(terminals, service, "activate", "alice")
    answer(terminal, "Please enter password for user alice: ", "hünter2")
    code, output = finish(terminal)
    assert code == 0
    assert "hünter2" not in output
    first, second = service.calls_of("ActivateHome")
    assert passwords(first[1]) == []
    assert passwords(second[1]) == ["hünter2"]


def test_a_wrong_password_is_said_and_the_next_goes_along_with_it(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(ActivateHome=[WRONG, WRONG, []])
    terminal = run(terminals, service, "activate", "alice")
    answer(terminal, "Please enter password for user alice: ", "one")
    terminal.expect_exact("The password is wrong, or not sufficient.")
    answer(terminal, "Please enter password for user alice: ", "two")
    assert finish(terminal)[0] == 0
    assert passwords(service.calls_of("ActivateHome")[2][1]) == ["two", "one"]


def test_pin_and_presence_are_asked_for_by_error_name(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    steps = [error("TokenPinNeeded"), error("TokenUserPresenceNeeded"), []]
    service.start(AuthenticateHome=steps)
    terminal = run(terminals, service, "authenticate", "alice")
    answer(terminal, "Please enter security token PIN for user alice: ", "1234")
    terminal.expect_exact("Please confirm presence on the security token of user alice.")
    assert finish(terminal)[0] == 0
    last = json.loads(str(service.calls_of("AuthenticateHome")[2][1]))
    assert last == {"tokenPin": ["1234"], "fido2UserPresencePermitted": True}


def test_new_password_is_asked_for_twice_until_both_agree(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start()
    terminal = run(terminals, service, "create", "alice")
    answer(terminal, "Please enter new password for user alice: ", "first")
    answer(terminal, "Please enter new password for user alice (repeat): ", "other")
    terminal.expect_exact("The passwords are not the same, try again.")
    answer(terminal, "Please enter new password for user alice: ", "same one")
    answer(terminal, "Please enter new password for user alice (repeat): ", "same one")
    assert finish(terminal)[0] == 0
    record = json.loads(str(service.calls_of("CreateHomeEx")[0][0]))
    assert record["secret"] == {"password": ["same one"]}


def test_a_weak_new_password_is_asked_for_again(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(CreateHomeEx=[error("LowPasswordQuality", "It is too short."), []])
    terminal = run(terminals, service, "create", "alice", NEWPASSWORD="x")
    terminal.expect_exact("It is too short.")
    terminal.expect_exact("--enforce-password-policy=no")
    answer(terminal, "new password for user alice: ", "better one")
    answer(terminal, "(repeat): ", "better one")
    assert finish(terminal)[0] == 0
    record = json.loads(str(service.calls_of("CreateHomeEx")[1][0]))
    assert record["secret"] == {"password": ["better one"]}
    assert len(record["privileged"]["hashedPassword"]) == 1


def test_passwd_asks_for_the_new_then_for_the_current_password(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(ChangePasswordHome=[WRONG, error("LowPasswordQuality", "It is too short."), []])
    terminal = run(terminals, service, "passwd", "alice")
    answer(terminal, "new password for user alice: ", "weak")
    answer(terminal, "(repeat): ", "weak")
    answer(terminal, "Please enter current password for user alice: ", "old")
    terminal.expect_exact("It is too short.")
    answer(terminal, "new password for user alice: ", "strong")
    answer(terminal, "(repeat): ", "strong")
    assert finish(terminal)[0] == 0
    _, new, old = service.calls_of("ChangePasswordHome")[2]
    assert (passwords(new), passwords(old)) == (["strong"], ["old"])


def test_slot_asks_as_passwd_does(service: Service, terminals: list[pexpect.spawn[str]]) -> None:
    kinds = json.dumps([{"name": "safe", "kind": "recovery-key"}])
    weak = error("LowPasswordQuality", "It is too short.")
    service.start(AddSlot=[weak, WRONG, []], ListSlots=[[kinds]], ReplaceSlot=[WRONG, WRONG, []])
    terminal = run(terminals, service, "slot", "add", "alice", "work", NEWPASSWORD="weak")
    terminal.expect_exact("It is too short.")
    answer(terminal, "new password for user alice: ", "strong")
    answer(terminal, "(repeat): ", "strong")
    answer(terminal, "Please enter current password for user alice: ", "old")
    assert finish(terminal)[0] == 0
    user, name, kind, new, old = service.calls_of("AddSlot")[2]
    assert (user, name, kind) == ("alice", "work", "password")
    assert (passwords(new), passwords(old)) == (["strong"], ["old"])
    terminal = run(terminals, service, "slot", "replace", "alice", "safe")
    answer(terminal, "Please enter current password for user alice: ", "wrong")
    answer(terminal, "Please enter current password for user alice: ", "old")
    code, shown = finish(terminal)
    user, name, new, old = service.calls_of("ReplaceSlot")[2]
    (key,) = passwords(new)
    # Shown in the end, once it unlocks the home, and not before.
    assert (code, shown.count(key), passwords(old)) == (0, 1, ["old", "wrong"])


@pytest.mark.parametrize("text", ["", "\x04"])
def test_no_answer_gives_up(
    service: Service, terminals: list[pexpect.spawn[str]], text: str
) -> None:
    service.start(ActivateHome=[WRONG])
    terminal = run(terminals, service, "activate", "alice")
    terminal.expect_exact("password for user alice: ")
    terminal.send(text or "\n")
    code, output = finish(terminal)
    assert code == 1
    assert "Nothing entered" in output
    assert len(service.calls_of("ActivateHome")) == 1


SHELL = (
    "import subprocess, sys, termios; echo = lambda: bool(termios.tcgetattr(0)[3] & termios.ECHO);"
    "process = subprocess.Popen(sys.argv[1:]); print('pid', process.pid, flush=True);"
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "code = process.wait(); print('ended', code, 'echo', echo())"
)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_a_signal_ends_the_question_and_the_terminal_echoes_again(
    service: Service, terminals: list[pexpect.spawn[str]], number: int, code: int
) -> None:
    service.start(ActivateHome=[WRONG])
    terminal: pexpect.spawn[str] = pexpect.spawn(
        sys.executable, ["-c", SHELL, *RUN, "activate", "alice"], env=environment(service),
        encoding="utf-8", timeout=20,
    )  # fmt: skip
    terminals.append(terminal)
    terminal.expect(r"pid (\d+)")
    assert terminal.match
    pid = int(terminal.match[1])
    terminal.expect_exact("password for user alice: ")
    if number == signal.SIGINT:
        terminal.send("\x03")
    else:
        os.kill(pid, number)
    terminal.expect(r"ended (-?\d+) echo (\w+)")
    assert terminal.match
    assert (int(terminal.match[1]), terminal.match[2]) == (code, "True")


#: Starts the program as a shell does, in a group of its own that has the terminal, and keeps
#: its hands off the modes of the terminal. What it says is not part of what it is asked to do.
JOB_CONTROL = """
import os, signal, subprocess, sys, termios, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
process = subprocess.Popen(
    sys.argv[2:], process_group=0,
    preexec_fn=lambda: signal.signal(signal.SIGTTOU, signal.SIG_DFL),
)
os.tcsetpgrp(0, process.pid)
while os.WIFSTOPPED((status := os.waitpid(process.pid, os.WUNTRACED)[1])):
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped, echo", bool(termios.tcgetattr(0)[3] & termios.ECHO), flush=True)
    if sys.argv[1] == "bg":
        os.kill(process.pid, signal.SIGCONT)
        os.waitpid(process.pid, os.WUNTRACED)
        print("in the background, echo", bool(termios.tcgetattr(0)[3] & termios.ECHO), flush=True)
    os.tcsetpgrp(0, process.pid)
    os.kill(process.pid, signal.SIGCONT)
os.tcsetpgrp(0, os.getpgrp())
echo = bool(termios.tcgetattr(0)[3] & termios.ECHO)
print("ended", os.waitstatus_to_exitcode(status), "echo", echo)
"""


def stop_at(terminal: pexpect.spawn[str]) -> None:
    """Type half an answer and stop the program; what comes before it listens, it throws away."""
    for _ in range(5):
        terminal.send("half\x1a")
        if not terminal.expect_exact(["stopped, echo True", pexpect.TIMEOUT], timeout=3):
            return
    pytest.fail("The program cannot be stopped at its question.")


@pytest.mark.parametrize("how", ["fg", "bg"])
def test_question_is_asked_again_after_the_program_was_stopped_at_it(
    service: Service, terminals: list[pexpect.spawn[str]], how: str
) -> None:
    service.start(ActivateHome=[WRONG, []])
    terminal: pexpect.spawn[str] = pexpect.spawn(
        sys.executable, ["-c", JOB_CONTROL, how, *RUN, "activate", "alice"],
        env=environment(service), encoding="utf-8", timeout=20,
    )  # fmt: skip
    terminals.append(terminal)
    terminal.delaybeforesend = None
    for _ in range(2):
        terminal.expect_exact("password for user alice: ")
        stop_at(terminal)
        if how == "bg":
            terminal.expect_exact("in the background, echo True")
    answer(terminal, "password for user alice: ", "right")
    terminal.expect_exact("ended 0 echo True")
    assert "half" not in str(terminal.before)
    assert passwords(service.calls_of("ActivateHome")[1][1]) == ["right"]


def test_what_was_typed_before_the_question_is_not_the_answer(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(ActivateHome=[WRONG, []])
    terminal = run(terminals, service, "activate", "alice")
    # In the terminal's queue before the program has even started.
    terminal.send("typed ahead\n")
    answer(terminal, "password for user alice: ", "right")
    assert finish(terminal)[0] == 0
    assert passwords(service.calls_of("ActivateHome")[1][1]) == ["right"]


def test_list_on_a_terminal_is_aligned_coloured_and_fits(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    long = ["bob", 60076, "inactive", 60076, "B" * 100, "/home/bob", "/bin/bash", "/x/bob"]
    short = ["alice", 60456, "active", 60456, "Alice", "/home/alice", "/bin/sh", "/x/alice"]
    service.start(ListHomes=[[[long, short]]])
    code, output = finish(run(terminals, service, "list"))
    assert code == 0
    assert "\x1b[32mactive" in output
    assert "…" in output
    assert "2 home areas listed." in output
    plain = output.replace("\x1b[32m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(len, plain)) <= 80
    assert plain[0].index("UID") == plain[1].index("60456") == plain[2].index("60076")


def test_no_color_is_respected(service: Service, terminals: list[pexpect.spawn[str]]) -> None:
    home = ["alice", 60456, "active", 60456, "Alice", "/home/alice", "/bin/sh", "/x/alice"]
    service.start(ListHomes=[[[home]]])
    assert "\x1b" not in finish(run(terminals, service, "list", NO_COLOR="1"))[1]


def test_empty_list_says_so(service: Service, terminals: list[pexpect.spawn[str]]) -> None:
    service.start(ListHomes=[[[]]])
    assert finish(run(terminals, service, "list"))[1].strip() == "No home areas."


def test_json_on_a_terminal_is_pretty(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    service.start(GetUserRecordByName=[['{"userName":"alice"}', False, "/x"]])
    assert '\t"userName" : "alice"' in finish(run(terminals, service, "inspect", "-j", "alice"))[1]


def test_json_on_a_terminal_cannot_steer_it(
    service: Service, terminals: list[pexpect.spawn[str]]
) -> None:
    name = "A\u009b2J\u202eB"
    service.start(
        GetUserRecordByName=[[json.dumps({"userName": "alice", "realName": name}), False, "/x"]],
        ListHomes=[[[["alice", 1, "active", 1, name, "/home/alice", "/bin/sh", "/x"]]]],
    )
    for arguments in (("inspect", "-j", "alice"), ("list", "-j")):
        output = finish(run(terminals, service, *arguments))[1]
        assert r"A\u009b2J\u202eB" in output
        assert name not in output


assert termios.ECHO  # what SHELL looks at
