"""`homemgr demo` for real: what it claims is on the screen, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import RUN, environment, homemgr

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

NOBODY = r"^   -\S+ +1 65534 65534 .* "


def traces() -> dict[str, list[str]]:
    """Everything that a demonstration could leave."""
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    processes = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if b"homemgr-demo" in command:
            processes.append(command.decode(errors="replace"))
    return {
        "directories": [str(p) for p in Path("/").glob("*/*homemgr-demo*")],
        "loop devices": [line for line in loops.splitlines() if "homemgr-demo" in line],
        "mounts": [m for m in Path("/proc/mounts").read_text().splitlines() if "homemgr-demo" in m],
        "processes": processes,
    }


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    assert not any(traces().values())
    yield
    # The kernel takes a killed namespace apart after its processes are gone.
    deadline = time.monotonic() + 10
    while any(traces().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(traces().values()), traces()


def test_it_shows_the_whole_life_of_a_home() -> None:
    done = homemgr("demo")
    assert (done.returncode, done.stderr) == (0, "")
    output = done.stdout
    # At rest all is nobody's, the identity too; at work the same file has two owners.
    assert re.search(NOBODY + r"\.identity$", output, re.MULTILINE)
    assert re.search(NOBODY + "note$", output, re.MULTILINE)
    owner = re.search(r"^   -rw------- 1 (\d+) (\d+) 6 .* note$", output, re.MULTILINE)
    assert owner
    assert 60001 <= int(owner[1]) <= 60513
    assert owner[1] == owner[2]
    assert "idmapped" in output
    assert "Value too large for defined data type" in output
    assert output.rstrip().endswith("are gone now.")
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", output, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("line", ["mkfs.ext4", "homemgr list", "homemgr create", "echo hello"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(line: str, number: int) -> None:
    with subprocess.Popen(
        [*RUN, "demo"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        for text in process.stdout:
            if line in text:
                break
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


def test_a_killed_inner_half_leaves_nothing() -> None:
    with subprocess.Popen(
        [*RUN, "demo"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for text in process.stdout:
            if "homemgr create" in text:
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        process.communicate(timeout=30)
    assert process.returncode != 0


def test_killed_itself_it_leaves_nothing() -> None:
    with subprocess.Popen(
        [*RUN, "demo"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for text in process.stdout:
            if "homemgr create" in text:
                break
        process.kill()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def test_the_variable_of_the_inner_half_alone_makes_nobody_one() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    done = homemgr("demo", HOMEMGR_DEMO_INSIDE="1")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("are gone now.")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    """In a tree of its own: only what is mounted there can be found."""
    script = f'mount --bind {tmp_path} /sbin; mount --bind {tmp_path} /usr/sbin; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *RUN, "demo"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "mkfs.ext4" in done.stderr
    assert "apt-get install e2fsprogs" in done.stderr


def test_without_root_it_says_so() -> None:
    # The checkout may lie in a directory that only root reads, such as /root.
    readable = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", *readable, *RUN, "demo"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Only root may mount" in done.stderr
    assert "Traceback" not in done.stderr
