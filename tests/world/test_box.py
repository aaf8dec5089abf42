"""The boxes themselves: alone, side by side, and without a trace afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .box import Box, CommandFailed, wait_for
from .layer import REPOSITORY

pytestmark = pytest.mark.usefixtures("machine")

# Boots a box, says its first process and its loop devices, and waits for its own end.
RUNNER = """
import sys, time
from tests.world.box import Box
box = Box("homed")
box.boot()
print(box.pid1, box._state, *box.loop_devices(), flush=True)
time.sleep(600)
"""


def remains(state: str) -> list[str]:
    """Loop devices over images of a box."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    own = f"{Path(state).name}/"
    return [str(path) for path in backing if path.exists() and own in path.read_text()]


def test_two_boxes_know_nothing_of_each_other() -> None:
    with Box("homed") as one, Box("homed") as two:
        one.run(
            ["homectl", "create", "alice", "--storage=directory", "--enforce-password-policy=no"],
            env={"NEWPASSWORD": "pw"},
        )
        assert "alice" in one.run(["homectl", "list"]).stdout
        assert "alice" not in two.run(["homectl", "list"]).stdout
        assert one.read("/etc/machine-id") != two.read("/etc/machine-id")
        one.kill()
        assert two.systemctl("is-system-running").stdout == "running\n"


def test_a_killed_box_leaves_nothing() -> None:
    box = Box("homed")
    box.boot()
    state, pids = box._state, box.processes()
    assert state.exists()
    assert len(pids) > 5
    assert len(box.loop_devices()) == 1
    box.kill()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/root").exists()]
    assert box.loop_devices() == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/homemgr-{box.name}")) == []
    assert not state.exists()


def test_a_killed_test_run_takes_its_boxes_along() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        pid, state, *_ = runner.stdout.readline().split()
        namespace = Path(f"/proc/{pid}/ns/mnt")
        assert namespace.readlink()
        runner.send_signal(signal.SIGKILL)
    wait_for(lambda: not os.path.lexists(namespace) or not _readable(namespace), "the box is dead")
    wait_for(lambda: not remains(state), "its loop devices are free")
    # Only files can be left of a run that could not clean up.
    subprocess.run(["rm", "-rf", "--one-file-system", state], check=True)


def _readable(link: Path) -> bool:
    try:
        return bool(link.readlink())
    except OSError:
        return False


def test_commands_tell_their_failures() -> None:
    with Box("homed") as box:
        assert box.run(["cat"], stdin="given").stdout == "given"
        assert box.run(["sh", "-c", "exit 3"], check=False).code == 3
        with pytest.raises(CommandFailed, match="ended with 3"):
            box.run(["sh", "-c", "exit 3"])
        with pytest.raises(CommandFailed, match="killed after"):
            box.run(["sleep", "60"], timeout=0.5)
        assert box.run(["id", "-un"], user="nobody").stdout == "nobody\n"


@pytest.mark.parametrize("base", ["debian12", "sid"])
def test_a_box_boots_without_a_failed_unit(base: str) -> None:
    with Box("homed", base=base) as box:
        running = box.systemctl("list-units", "--type=service", "--state=running", "--plain").stdout
        for unit in ("dbus", "ssh", "systemd-homed", "systemd-logind", "systemd-userdbd"):
            assert f"{unit}.service" in running
        assert box.mounts()["/home"].startswith("rw")
