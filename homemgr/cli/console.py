"""The console during a dialog at boot: a heading, and silence of kernel and service manager.

See io.systemd.MuteConsole (systemd 258), and systemd-firstboot(1) for the kernel command line.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MUTE = "/run/systemd/io.systemd.MuteConsole"
_ANSWER_S = 5.0
_REVERSE, _RESET = "\x1b[7m", "\x1b[0m"
_OFF = ("no", "n", "0", "false", "f", "off", "headless")


@contextmanager
def muted() -> Iterator[bool]:
    """Keep others from writing to the console within the block; False if that cannot be had."""
    request = {"method": "io.systemd.MuteConsole.Mute", "parameters": {}, "more": True}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as line:
        line.settimeout(_ANSWER_S)
        is_mute = False
        # Where nobody mutes anything, the dialog is only less tidy.
        with suppress(OSError):
            line.connect(_MUTE)
            line.sendall(json.dumps(request).encode() + b"\0")
            is_mute = b'"error"' not in line.recv(4096)
        # It lasts as long as the connection.
        yield is_mute


def show_heading(text: str) -> None:
    """A bar across the terminal; where the width is unknown, eighty columns."""
    width = shutil.get_terminal_size().columns
    write(f"{_REVERSE}{text.center(width)}{_RESET}\n")


def write(text: str) -> None:
    """Show ``text`` on the controlling terminal; nothing if there is none."""
    with suppress(OSError), open("/dev/tty", "wb", buffering=0) as terminal:
        terminal.write(text.encode(errors="replace"))


def may_prompt(command_line: str | None = None) -> bool:
    """Whether the kernel command line lets a first boot ask (``systemd.firstboot=``)."""
    if command_line is None:
        with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
            command_line = file.read()
    words = [word.partition("=") for word in command_line.split()]
    said = [value.lower() for name, _, value in words if name == "systemd.firstboot"]
    return not said or said[-1] not in _OFF


def override() -> bool | None:
    """What SYSTEMD_HOME_FIRSTBOOT_OVERRIDE says: ask although users exist, never, or nothing."""
    value = os.environ.get("SYSTEMD_HOME_FIRSTBOOT_OVERRIDE")
    return None if value is None else value.lower() not in _OFF
