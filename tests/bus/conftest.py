"""A private bus for each test, and a check that no descriptor or child is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Limits and type of a system bus, policy of none: every test is its own administrator.
CONFIGURATION = """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_requested_reply="true"/><allow receive_sender="*"/>
  </policy>
  <limit name="max_incoming_bytes">127000000</limit>
  <limit name="max_outgoing_bytes">127000000</limit>
  <limit name="max_message_size">33554432</limit>
  <limit name="max_message_unix_fds">16</limit>
  <limit name="max_replies_per_connection">128</limit>
  <limit name="max_match_rules_per_connection">512</limit>
  <limit name="max_connections_per_user">512</limit>
</busconfig>
"""


class PrivateBus:
    """A dbus-daemon of our own; `kill` takes it away in mid-flight."""

    def __init__(self, directory: Path) -> None:
        """Start it; its socket is there when this returns."""
        socket = directory / "bus"
        configuration = directory / "bus.conf"
        configuration.write_text(CONFIGURATION.format(socket=socket))
        self.address = f"unix:path={socket}"
        self._daemon = subprocess.Popen(
            [
                "dbus-daemon",
                "--nofork",
                "--nopidfile",
                "--print-address",
                f"--config-file={configuration}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._daemon.stdout is not None
        assert self._daemon.stdout.readline()

    def kill(self) -> None:
        """End the daemon without a word to anybody."""
        self._daemon.kill()
        self._daemon.wait()
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()


@pytest.fixture
def private_bus(tmp_path: Path) -> Iterator[PrivateBus]:
    """A bus that only this test knows."""
    bus = PrivateBus(tmp_path)
    yield bus
    bus.kill()


def open_descriptors() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            # The descriptor of the listing itself.
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No descriptor more than before the test."""
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    assert open_descriptors() - before == set()
