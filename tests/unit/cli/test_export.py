"""`homemgr export` and `import`, and how jobs are waited for: files, pipes, terminals, ^C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pexpect
import pytest

from homemgr.errors import HOMEMGR1_ERROR

from .conftest import RUN, Service, environment, homemgr

RESULT = {
    "files": 59000,
    "bytes": 1 << 30,
    "report": {
        "counts": {"socket-skipped": 7, "strange-thing": 1},
        "notes": [
            *({"kind": "socket-skipped", "path": f"s{n}", "detail": ""} for n in range(7)),
            {"kind": "strange-thing", "path": "", "detail": "odd"},
        ],
    },
}
FINGERPRINT = "0123456789abcdef" * 4
UNTRUSTED = {
    "error": HOMEMGR1_ERROR + "UntrustedOrigin",
    "message": f"The home comes from a machine that is not known: {FINGERPRINT}.",
}


def test_an_export_appears_whole_and_private(service: Service, tmp_path: Path) -> None:
    service.start(**{"ExportHome job": [{"writes": "the home", "result": RESULT}]})
    target = tmp_path / "alice.export"
    target.write_text("an older one")
    done = homemgr("export", "alice", str(target), service=service)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_text() == "the home"
    assert target.stat().st_mode & 0o777 == 0o600
    assert service.calls_of("ExportHome") == [["alice", '{"wait_s": 0}', "descriptor"]]
    lines = done.stdout.splitlines()
    assert lines[0] == f"alice is in {target}: 59,000 files, 1.0 GiB."
    assert lines[1:] == [
        "WHAT\tWHERE\tDETAIL",
        *(f"socket left out\t~/s{n}\t-" for n in range(5)),
        "socket left out\t2 more\t-",
        "strange thing\t~\todd",
    ]


@pytest.mark.parametrize(
    "does", [{"error": HOMEMGR1_ERROR + "StreamError", "message": "No."}, {"dies": True}]
)
def test_an_export_that_fails_leaves_the_older_one(
    service: Service, tmp_path: Path, does: dict[str, object]
) -> None:
    service.start(**{"ExportHome job": [{"writes": "half", **does}]})
    target = tmp_path / "alice.export"
    target.write_text("an older one")
    before = sorted(os.listdir(tmp_path))
    done = homemgr("export", "alice", str(target), service=service)
    assert done.returncode == 1
    assert target.read_text() == "an older one"
    assert sorted(os.listdir(tmp_path)) == before
    if "dies" in does:
        assert done.stderr.splitlines() == [
            "homemgr: alice was not exported: The service ended in the middle of it.",
            "         Run the same command again.",
        ]


def test_an_export_into_a_pipe_is_nothing_but_the_home(service: Service) -> None:
    service.start(**{"ExportHome job": [{"writes": "the home", "result": RESULT}]})
    done = homemgr("export", "alice", "-", service=service)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the home", "")


def test_a_fifo_is_written_to_and_stays_one(service: Service, tmp_path: Path) -> None:
    service.start(**{"ExportHome job": [{"writes": "the home"}]})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        assert homemgr("export", "alice", str(fifo), service=service).returncode == 0
        assert reader.communicate(timeout=20)[0] == "the home"
    assert fifo.is_fifo()


def test_a_home_is_not_written_to_a_terminal(service: Service) -> None:
    service.start()
    controller, terminal = pty.openpty()
    done = subprocess.run(
        [*RUN, "export", "alice", "-"], env=environment(service), stdin=subprocess.DEVNULL,
        stdout=terminal, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(terminal)
    os.close(controller)
    assert done.returncode == 2
    assert "A home is not for a terminal" in done.stderr
    assert service.calls == []


def test_json_gives_the_result_as_it_is(service: Service, tmp_path: Path) -> None:
    service.start(**{"ExportHome job": [{"result": RESULT}]})
    target = str(tmp_path / "x")
    done = homemgr("export", "alice", target, "--json=short", service=service)
    assert json.loads(done.stdout) == RESULT
    assert homemgr("export", "alice", "-", "--json=short").returncode == 2


def test_quiet_is_quiet(service: Service, tmp_path: Path) -> None:
    service.start(**{"ExportHome job": [{"result": RESULT}]})
    done = homemgr("export", "alice", str(tmp_path / "x"), "-q", service=service)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_that_are_no_text_are_whole_in_json(service: Service, tmp_path: Path) -> None:
    note = {"kind": "socket-skipped", "path": "ä\udcff", "detail": ""}
    result = {"report": {"counts": {"socket-skipped": 1}, "notes": [note]}}
    service.start(**{"ExportHome job": [{"result": result}]})
    target = str(tmp_path / "x")
    done = homemgr("export", "alice", target, "--json=short", service=service)
    assert json.loads(done.stdout) == result
    assert "ä" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_from_outside_it_leaves_nothing_behind(
    service: Service, tmp_path: Path, number: int
) -> None:
    service.start(**{"ExportHome job": [{"hangs": True}]})
    there = tmp_path / "there"
    there.mkdir()
    with subprocess.Popen(
        [*RUN, "export", "alice", str(there / "x")], env=environment(service)
    ) as running:
        while not any(call["member"] == "Wait" for call in service.calls):
            time.sleep(0.01)
        assert os.listdir(there)
        running.send_signal(number)
        assert running.wait(20) == 128 + number
    assert os.listdir(there) == []


# --- import -------------------------------------------------------------------------------


def test_import_reads_the_file_and_says_whose_home_it_is(service: Service, tmp_path: Path) -> None:
    service.start(**{"ImportHome job": [{"reads": -1, "result": {**RESULT, "user": "bob"}}]})
    source = tmp_path / "alice.export"
    source.write_text("the home")
    done = homemgr("import", str(source), "--name=bob", service=service)
    assert done.returncode == 0
    assert done.stdout.startswith("bob is here from here on: 59,000 files")
    assert service.calls_of("stream") == [["the home"]]
    ((options, _),) = service.calls_of("ImportHome")
    assert json.loads(str(options)) == {"trust": [], "name": "bob"}


def test_trust_without_a_fingerprint_accepts_what_the_service_names(
    service: Service, tmp_path: Path
) -> None:
    service.start(**{"ImportHome job": [{"reads": 3, **UNTRUSTED}, {"reads": -1}]})
    source = tmp_path / "alice.export"
    source.write_text("the home")
    done = homemgr("import", str(source), "--trust", service=service)
    assert (done.returncode, done.stdout) == (0, "The home is here from here on.\n")
    options = [json.loads(str(call[0])) for call in service.calls_of("ImportHome")]
    assert options == [{"trust": []}, {"trust": [FINGERPRINT]}]
    # The second time from the beginning.
    assert service.calls_of("stream") == [["the"], ["the home"]]


def test_without_a_terminal_the_error_names_the_option(service: Service, tmp_path: Path) -> None:
    service.start(**{"ImportHome job": [UNTRUSTED]})
    source = tmp_path / "alice.export"
    source.write_text("the home")
    done = homemgr("import", str(source), service=service)
    assert done.returncode == 1
    assert "does not trust the machine it was exported on" in done.stderr
    assert f"--trust={FINGERPRINT}" in done.stderr


def test_what_came_through_a_pipe_cannot_be_read_twice(service: Service) -> None:
    service.start(**{"ImportHome job": [UNTRUSTED]})
    done = homemgr("import", "-", "--trust", service=service, stdin="the home")
    assert done.returncode == 1
    assert f"run it again with --trust={FINGERPRINT}" in done.stderr
    assert len(service.calls_of("ImportHome")) == 1


def test_another_fingerprint_than_the_trusted_one_is_refused(
    service: Service, tmp_path: Path
) -> None:
    service.start(**{"ImportHome job": [UNTRUSTED]})
    (tmp_path / "x").write_text("")
    other = ":".join(["AB"] * 32)
    done = homemgr("import", str(tmp_path / "x"), f"--trust={other}", service=service)
    assert done.returncode == 1
    ((options, _),) = service.calls_of("ImportHome")
    assert json.loads(str(options)) == {"trust": ["ab" * 32]}


@pytest.mark.parametrize("value", ["=", "=abc", "=" + "g" * 64])
def test_a_fingerprint_that_is_none_is_refused(value: str) -> None:
    done = homemgr("import", "/dev/null", "--trust" + value)
    assert done.returncode == 2


# --- on a terminal ------------------------------------------------------------------------


def on_terminal(service: Service, *arguments: str, columns: int = 100) -> pexpect.spawn[str]:
    terminal: pexpect.spawn[str] = pexpect.spawn(
        RUN[0], [*RUN[1:], *arguments], env=environment(service, TERM="xterm"),
        encoding="utf-8", timeout=20, dimensions=(24, columns),
    )  # fmt: skip
    terminal.delaybeforesend = None
    return terminal


PROGRESS = {
    "phase": "copying",
    "files": 1000,
    "total_files": 4000,
    "bytes": 1 << 28,
    "total_bytes": 1 << 30,
    "rate": 1 << 27,
    "left_s": 6,
}
HANGING = {"ExportHome job": [{"tells": [PROGRESS], "hangs": True}]}


def test_a_bar_shows_how_far_it_is_and_follows_the_width(service: Service, tmp_path: Path) -> None:
    service.start(**HANGING)
    terminal = on_terminal(service, "export", "alice", str(tmp_path / "x"))
    terminal.expect_exact("copying  [")
    terminal.expect(r"=+> +\]   25%  0:06 left  256.0 MiB of 1.0 GiB")
    terminal.setwinsize(24, 40)
    terminal.expect_exact("25%  0:06 left")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    assert "GiB" not in str(terminal.before).partition("\x1b[K")[0]
    terminal.close()


def test_interrupted_it_calls_the_job_off_and_waits_for_its_end(
    service: Service, tmp_path: Path
) -> None:
    service.start(**HANGING)
    terminal = on_terminal(service, "export", "alice", str(tmp_path / "x"))
    terminal.expect_exact("copying")
    terminal.sendintr()
    terminal.expect_exact("\r\x1b[Khomemgr: The operation was called off before it was done.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert len(service.calls_of("Cancel")) == 1
    assert not (tmp_path / "x").exists()


def test_a_second_interrupt_does_not_wait(service: Service, tmp_path: Path) -> None:
    service.start(**{"ExportHome job": [{"tells": [PROGRESS], "takes_s": 60}]})
    terminal = on_terminal(service, "export", "alice", str(tmp_path / "x"))
    terminal.expect_exact("copying")
    terminal.sendintr()
    terminal.expect_exact("Ending it")
    terminal.kill(signal.SIGINT)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130


@pytest.mark.parametrize(("answer", "code", "calls"), [("yes", 0, 2), ("no", 1, 1)])
def test_on_a_terminal_trust_is_asked_for_once(
    service: Service, tmp_path: Path, answer: str, code: int, calls: int
) -> None:
    service.start(**{"ImportHome job": [UNTRUSTED, {}]})
    (tmp_path / "x").write_text("")
    terminal = on_terminal(service, "import", str(tmp_path / "x"))
    terminal.expect_exact("The administrator of the machine it was exported on should see")
    terminal.expect_exact(f"    {FINGERPRINT}  (its key, or that of")
    terminal.expect_exact("(yes/no) ")
    terminal.sendline("perhaps")
    terminal.expect_exact("Please type yes or no: ")
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == code
    assert len(service.calls_of("ImportHome")) == calls
