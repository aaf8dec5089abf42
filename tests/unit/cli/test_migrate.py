"""`homemgr migrate` with a stand-in for ssh, which runs the other homemgr on the same bus."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from homemgr.cli import ssh_cipher
from homemgr.cli.arguments import UsageError
from homemgr.cli.ssh import Host
from homemgr.errors import DBUS, HOMEMGR1_ERROR

from .conftest import RUN, Service, environment, homemgr

INTERRUPTED = {"error": HOMEMGR1_ERROR + "TransferInterrupted", "message": "The stream ended."}
CHACHA, GCM = "chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"
FINGERPRINT = "0123456789abcdef" * 4
SIGNER = "fedcba9876543210" * 4
UNTRUSTED = {
    "error": HOMEMGR1_ERROR + "UntrustedOrigin",
    "message": f"On the other machine: Not known: {FINGERPRINT}, {SIGNER}.",
}
RESULT = {"files": 10, "bytes": 2048, "sent_bytes": 1024, "offline_s": 0.25, "uid": 60001}

#: Takes ssh's command line apart, notes it, and does what a login shell over there would.
STAND_IN = """#!{python}
import json, os, sys
options, (host, command) = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
with open({log!r}, "a") as log:
    log.write(json.dumps([options, host, command]) + "\\n")
os.environ["PATH"] = {path!r}
{before}
os.execv("/bin/sh", ["sh", "-c", command])
"""


class Ssh:
    """The stand-in, and what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "ssh.log"
        self.program = directory / "ssh"
        programs = directory / "bin"
        programs.mkdir()
        other = programs / "homemgr"
        other.write_text(f'#!/bin/sh\nexec {shlex.join(RUN)} "$@"\n')
        other.chmod(0o755)
        self.path = f"{programs}:/usr/bin:/bin"
        self.behave()

    def behave(self, before: str = "", *, has_homemgr: bool = True) -> None:
        path = self.path if has_homemgr else "/usr/bin:/bin"
        self.program.write_text(
            STAND_IN.format(python=sys.executable, log=str(self.log), path=path, before=before)
        )
        self.program.chmod(0o755)

    @property
    def calls(self) -> list[tuple[list[str], str, list[str]]]:
        """Options, host, and words of the other homemgr."""
        found = []
        for line in self.log.read_text().splitlines():
            options, host, command = json.loads(line)
            words = shlex.split(command)
            found.append((options, host, words[words.index("transfer") :]))
        return found


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    return Ssh(tmp_path)


def migrate(
    service: Service, ssh: Ssh, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return homemgr("migrate", f"--ssh={ssh.program}", *arguments, service=service, **variables)


def test_push_connects_the_two_services(service: Service, ssh: Ssh) -> None:
    service.start(
        **{
            "SendHome job": [{"writes": "the home", "reads": 8, "result": RESULT}],
            "ReceiveHome job": [{"reads": 8, "writes": "received"}],
        }
    )
    done = migrate(service, ssh, "alice", "root@there", "--wait=5", "--remove")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "alice is on root@there from here on:"
        " 10 files, 2.0 KiB, 1.0 KiB sent, out of use for 0.2 s.\n"
    )
    assert sorted(service.calls_of("stream")) == [["received"], ["the home"]]
    ((user, options, *_),) = service.calls_of("SendHome")
    assert user == "alice"
    assert json.loads(str(options)) == {"host": "root@there", "remove": True, "wait_s": 5}
    ((options, *_),) = service.calls_of("ReceiveHome")
    here = os.uname().nodename
    assert json.loads(str(options)) == {"host": here, "name": "alice", "trust": []}
    ((flags, host, words),) = ssh.calls
    assert flags[0] == "-T"
    assert host == "root@there"
    assert words == ["transfer", "receive", "alice", "--outcome", f"--peer={here}"]


def test_trust_vouches_for_the_own_key_at_the_first_try(service: Service, ssh: Ssh) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n"
    service.start(GetSigningKey=[[pem, 0]])
    assert migrate(service, ssh, "alice", "there", "--trust").returncode == 0
    assert service.calls_of("GetSigningKey") == [["local.public"]]
    ((options, *_),) = service.calls_of("ReceiveHome")
    assert json.loads(str(options))["trust"] == [hashlib.sha256(b"ABC").hexdigest()]


@pytest.mark.parametrize("words", [["there"], ["there", f"--trust={SIGNER}"], ["--from=there"]])
def test_nobody_else_vouches_for_it(service: Service, ssh: Ssh, words: list[str]) -> None:
    service.start()
    migrate(service, ssh, "alice", *words)
    assert service.calls_of("GetSigningKey") == []


def test_pull_connects_them_the_other_way_round(service: Service, ssh: Ssh) -> None:
    service.start(
        **{
            "SendHome job": [{"writes": "the home", "reads": 8}],
            "ReceiveHome job": [{"reads": 8, "writes": "received", "result": RESULT}],
        }
    )
    done = migrate(service, ssh, "alice", "--from=there", "--keep", "--wait=5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The copy here is as the home of alice was a moment ago: 10 ")
    ((user, options, *_),) = service.calls_of("SendHome")
    assert (user, json.loads(str(options))) == (
        "alice",
        {"host": os.uname().nodename, "keep": True, "wait_s": 5, "awaits_secret": True},
    )
    ((options, *_),) = service.calls_of("ReceiveHome")
    assert json.loads(str(options)) == {"host": "there", "name": "alice", "trust": []}


def test_undo_finds_the_machine_that_has_the_home(service: Service, ssh: Ssh) -> None:
    known = [
        {"user": "bob", "host": "x"},
        {"user": "alice", "host": "c", "direction": "in", "phase": "passed"},
        {"user": "alice", "host": "a@b", "direction": "out", "phase": "left"},
    ]
    service.start(ListTransfers=[[json.dumps(known)]])
    done = migrate(service, ssh, "alice", "--undo")
    assert (done.returncode, done.stdout) == (0, "alice is here again.\n")
    ((_, options, *_),) = service.calls_of("SendHome")
    assert json.loads(str(options)) == {"host": "a@b", "undo": True, "wait_s": 0}
    done = migrate(service, ssh, "carol", "--undo")
    assert done.returncode == 1
    assert "No transfer of carol is known here" in done.stderr


def test_any_name_gets_there_as_it_is(service: Service, ssh: Ssh) -> None:
    service.start()
    user = "a'b $(touch x);\"\\"
    assert migrate(service, ssh, user, "there").returncode == 0
    assert ssh.calls[0][2][2] == user
    ((options, *_),) = service.calls_of("ReceiveHome")
    assert json.loads(str(options))["name"] == user


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "", "a@-x", "-x@a", "@a", "a b", "a\nb"])
def test_a_host_that_ssh_could_misunderstand_is_refused(name: str) -> None:
    done = homemgr("migrate", "alice", "--", name)
    assert done.returncode == 2
    assert "expected [LOGIN@]HOST" in done.stderr


@pytest.mark.parametrize(
    ("name", "shown"), [("[::1]", "::1"), ("me@[fe80::1%eth0]", "me@fe80::1%eth0"), ("::1", "::1")]
)
def test_ipv6_is_written_as_ssh_wants_it(name: str, shown: str) -> None:
    assert Host(name).command(["x"])[-2] == shown


def test_program_and_options_of_ssh_come_from_option_or_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOMEMGR_SSH", "other -p 22")
    assert Host("a").command(["x"])[:3] == ["other", "-p", "22"]
    assert Host("a", "mine -o 'A b'").command(["x"])[:3] == ["mine", "-o", "A b"]
    assert Host("a", "", "sudo homemgr").command(["x", "y z"])[-1] == "sudo homemgr x 'y z'"
    with pytest.raises(UsageError):
        Host("a", "'")


@pytest.mark.parametrize(
    "words",
    [
        ["alice"],
        ["alice", "a", "--from=b"],
        ["alice", "a", "--keep", "--remove"],
        ["alice", "a", "--wait=soon"],
        ["alice", "a", "--trust=x"],
    ],
)
def test_wrong_command_lines_begin_nothing(words: list[str]) -> None:
    assert homemgr("migrate", *words).returncode == 2


CONFIG = """
RemoteCommand tmux
RequestTTY force
LocalForward 8080 localhost:80
ForwardAgent yes
User somebody
"""


def test_settings_of_ssh_that_would_disturb_the_stream_do_not_count(tmp_path: Path) -> None:
    """As the real ssh understands them; settings that say how to get there do count."""
    config = tmp_path / "config"
    config.write_text(CONFIG)
    command = Host("there", f"ssh -F {config}").command(["transfer"])
    split = command.index("--")
    done = subprocess.run(
        [*command[:split], "-G", *command[split : split + 2]], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    settings = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert "remotecommand" not in settings
    assert settings["requesttty"] == "false"
    assert settings["clearallforwardings"] == "yes"
    assert settings["forwardagent"] == "no"
    assert settings["escapechar"] == "none"
    assert settings["user"] == "somebody"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            f"user me\nciphers {CHACHA},aes128-ctr,{GCM}\nport 22",
            [f"-oCiphers={GCM},{CHACHA},aes128-ctr"],
        ),
        (f"ciphers {CHACHA},aes128-ctr", []),
        (f"ciphers aes128-ctr,{GCM}", []),
        ("user me", []),
        ("", []),
    ],
)
def test_of_the_ciphers_that_ssh_offers_the_quickest_comes_first(
    settings: str, expected: list[str]
) -> None:
    assert ssh_cipher.preferring(settings) == expected


@pytest.mark.parametrize("allowed", [f"{CHACHA},aes128-ctr,{GCM}", f"{CHACHA},aes128-ctr"])
def test_no_cipher_is_offered_that_the_settings_of_ssh_exclude(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """As the real ssh understands what it is told in the end."""
    monkeypatch.setattr(ssh_cipher, "has_aes", lambda: True)
    config = tmp_path / "config"
    config.write_text(f"Ciphers {allowed}\n")
    host = Host("there", f"ssh -F {config}")
    host.require_ssh()
    command = host.command(["transfer"])
    split = command.index("--")
    done = subprocess.run(
        [*command[:split], "-G", *command[split : split + 2]], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    settings = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    offered = settings["ciphers"].split(",")
    assert sorted(offered) == sorted(allowed.split(","))
    assert offered[0] == (GCM if GCM in allowed else CHACHA)


# --- what goes wrong ----------------------------------------------------------------------


def test_without_ssh_nothing_is_begun(service: Service) -> None:
    service.start()
    done = homemgr("migrate", "alice", "there", "--ssh=/nowhere/ssh", service=service)
    assert done.returncode == 1
    assert "There is no /nowhere/ssh to reach there with." in done.stderr
    assert service.calls == []


CUT_OFF = {"SendHome job": [{"reads": -1, **INTERRUPTED}]}


def test_an_ssh_that_gets_nowhere_is_passed_on_and_named(service: Service, ssh: Ssh) -> None:
    service.start(**CUT_OFF)
    ssh.behave("sys.stderr.write('ssh: \\x1b[31mrefused\\n'); sys.stderr.flush(); os._exit(255)")
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 255
    assert done.stderr.splitlines()[:2] == [
        "ssh:  [31mrefused",
        "homemgr: ssh did not get through to there.",
    ]


def test_the_real_ssh_says_itself_why_it_is_refused(service: Service) -> None:
    service.start(**CUT_OFF)
    # Bound and not listening: nobody else can have this port meanwhile.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        program = f"ssh -F /dev/null -p {taken.getsockname()[1]}"
        done = homemgr("migrate", "alice", "127.0.0.1", f"--ssh={program}", service=service)
    assert done.returncode == 255
    first, second, *_ = done.stderr.splitlines()
    assert first.endswith("Connection refused")
    assert second == "homemgr: ssh did not get through to 127.0.0.1."


def test_a_machine_without_homemgr_is_named(service: Service, ssh: Ssh) -> None:
    service.start(**CUT_OFF)
    ssh.behave(has_homemgr=False)
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert done.stderr.startswith("homemgr: There is no homemgr on there")


def test_a_homemgr_of_another_version_is_named(service: Service, ssh: Ssh) -> None:
    service.start(**CUT_OFF)
    ssh.behave("sys.stderr.write('homemgr: Unknown verb.\\n'); sys.stderr.flush(); os._exit(1)")
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert "homemgr: The homemgr on there is of another version" in done.stderr


def test_a_connection_that_breaks_later_says_how_to_go_on(service: Service, ssh: Ssh) -> None:
    does = {"reads": -1, "tells": [{"phase": "copying"}], **INTERRUPTED}
    service.start(**{"SendHome job": [does]})
    ssh.behave("os._exit(255)")
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "homemgr: The connection to there broke.",
        "         Run the same command again: it goes on where it was cut off.",
    ]


def test_the_failure_of_the_other_machine_is_said_once(service: Service, ssh: Ssh) -> None:
    service.start(
        **CUT_OFF,
        ReceiveHome=[{"error": DBUS + "AccessDenied", "message": "You may not do this."}],
    )
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "homemgr: there: You may not do this.",
        "         Log in there as root, or have it run with --remote='sudo homemgr'.",
    ]


def test_the_failure_of_this_machine_counts_more_than_its_consequences(
    service: Service, ssh: Ssh
) -> None:
    busy = {"error": "org.freedesktop.home1.HomeBusy", "message": "alice is logged in."}
    service.start(**{"SendHome job": [busy], "ReceiveHome job": [{"reads": -1, **INTERRUPTED}]})
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "homemgr: alice is logged in."
    assert "The stream ended" not in done.stderr


def test_a_service_that_ends_here_says_how_to_go_on(service: Service, ssh: Ssh) -> None:
    service.start(**{"SendHome job": [{"dies": True}], "ReceiveHome job": [{"takes_s": 5}]})
    done = migrate(service, ssh, "alice", "there")
    assert done.returncode == 1
    assert "Run the same command again" in done.stderr


# --- trust --------------------------------------------------------------------------------


def test_push_hands_accepted_fingerprints_to_the_receiver(service: Service, ssh: Ssh) -> None:
    service.start(**{"SendHome job": [UNTRUSTED, {}], "ReceiveHome job": [INTERRUPTED, {}]})
    done = migrate(service, ssh, "alice", "there", "--trust")
    assert done.returncode == 0
    trusted = [json.loads(str(c[0]))["trust"] for c in service.calls_of("ReceiveHome")]
    assert trusted == [[], [FINGERPRINT, SIGNER]]


def test_without_a_terminal_both_fingerprints_are_named(service: Service, ssh: Ssh) -> None:
    service.start(**{"SendHome job": [UNTRUSTED], "ReceiveHome job": [INTERRUPTED]})
    done = migrate(service, ssh, "alice", "there", f"--trust={FINGERPRINT}")
    assert done.returncode == 1
    assert f"there does not trust this machine yet; its key: {FINGERPRINT}" in done.stderr
    assert f"add --trust={SIGNER}" in done.stderr


def test_on_a_terminal_it_is_asked_for(service: Service, ssh: Ssh) -> None:
    service.start(**{"SendHome job": [UNTRUSTED, {}], "ReceiveHome job": [INTERRUPTED, {}]})
    terminal: pexpect.spawn[str] = pexpect.spawn(
        RUN[0], [*RUN[1:], "migrate", f"--ssh={ssh.program}", "alice", "there"],
        env=environment(service, TERM="xterm"), encoding="utf-8", timeout=20,
    )  # fmt: skip
    terminal.delaybeforesend = None
    terminal.expect_exact("there does not trust this machine yet.")
    terminal.expect_exact("The administrator of this machine should see")
    terminal.expect_exact(f"{SIGNER}  (the key that signed the record)")
    terminal.expect_exact("(yes/no) ")
    terminal.sendline("yes")
    terminal.expect_exact("alice is on there from here on.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


# --- the other end ------------------------------------------------------------------------


def test_the_stream_holds_nothing_but_the_stream(service: Service) -> None:
    service.start(**{"ReceiveHome job": [{"reads": -1, "writes": "answer", "result": RESULT}]})
    done = homemgr("transfer", "receive", "alice", service=service, stdin="the home")
    assert (done.returncode, done.stdout, done.stderr) == (0, "answer", "")
    assert service.calls_of("stream") == [["the home"]]


def test_the_other_end_says_in_words_or_for_programs_how_it_failed(service: Service) -> None:
    service.start(**{"SendHome job": [INTERRUPTED]})
    done = homemgr("transfer", "send", "alice", service=service)
    assert done.returncode == 1
    assert done.stderr.startswith("homemgr: The stream ended.\n")
    done = homemgr("transfer", "send", "alice", "--outcome", service=service)
    assert json.loads(done.stderr) == {"homemgr": 1, **INTERRUPTED}


def test_the_other_end_is_not_for_terminals(service: Service) -> None:
    service.start()
    terminal: pexpect.spawn[str] = pexpect.spawn(
        RUN[0], [*RUN[1:], "transfer", "receive", "alice"], env=environment(service),
        encoding="utf-8", timeout=20,
    )  # fmt: skip
    terminal.expect_exact("not a terminal")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 2


# --- what is known ------------------------------------------------------------------------


def test_transfers_are_listed_and_forgotten(service: Service) -> None:
    item = {
        "user": "alice", "direction": "out", "host": "there", "machine_id": "0" * 32,
        "phase": "left", "when": 0, "bytes": 2048,
    }  # fmt: skip
    service.start(ListTransfers=[[json.dumps([item])]])
    done = homemgr("transfers", service=service)
    assert done.stdout.splitlines()[1].split("\t") == [
        *("alice", "to", "there", "left", "2.0 KiB", "-")
    ]
    shown = homemgr("transfers", "list", "-j", service=service).stdout
    assert json.loads(shown) == [item]
    forget = ("transfers", "forget", "alice")
    assert homemgr(*forget, service=service).returncode == 0
    assert homemgr(*forget, "--remove", "--force", service=service).returncode == 0
    assert service.calls_of("ForgetTransfer") == [
        ["alice", "{}"],
        ["alice", '{"remove": true, "force": true}'],
    ]
    assert homemgr("transfers", "forget").returncode == 2


def test_origins_are_listed_trusted_and_forgotten(service: Service) -> None:
    item = {"fingerprint": FINGERPRINT, "host": "there", "when": 1.7e15, "by_uid": 0}
    service.start(ListOrigins=[[json.dumps([item])]])
    done = homemgr("origins", service=service)
    row = done.stdout.splitlines()[1].split("\t")
    assert row[:4] == [FINGERPRINT, "there", "-", "0"]
    assert row[4].startswith("2023-11-1")
    shown = ":".join(FINGERPRINT[n : n + 2] for n in range(0, 64, 2)).upper()
    assert homemgr("origins", "trust", shown, "--name=x", service=service).returncode == 0
    assert homemgr("origins", "forget", FINGERPRINT, service=service).returncode == 0
    assert service.calls_of("TrustOrigin") == [[FINGERPRINT, '{"host": "x"}']]
    assert service.calls_of("ForgetOrigin") == [[FINGERPRINT]]
    assert homemgr("origins", "trust", "abc").returncode == 2
