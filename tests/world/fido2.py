"""FIDO2 tokens in a box: programs that are plugged in, found by our code and by systemd's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soft_tokens import AUTHENTICATOR, HIDRAW

from .product import PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .box import Box

PORT = "/run/hidraw"
SOURCE = Path(__file__).with_name("fido2.c")
SONAME = "libfido2.so.1"
_PROGRAM = "/root/authenticator.py"
# Tokens that are programs are at the far end of a terminal.
_DROP_IN = "[Service]\nDeviceAllow=char-pts rw\n"


def make_port(box: Box) -> None:
    """Where tokens are plugged in: what programs find of it in sysfs is ours."""
    box.path(PORT).mkdir()
    box.run(["mount", "--bind", PORT, str(HIDRAW)])
    shutil.copy(AUTHENTICATOR, box.path(_PROGRAM))


def show_to_systemd(box: Box) -> None:
    """Have libfido2 list what is plugged in, and let both services open it."""
    found = box.run(["sh", "-c", f"ldconfig -p | grep -m1 -o '/.*/{SONAME}'"]).stdout.strip()
    real = box.run(["readlink", "-f", found]).stdout.strip()
    with tempfile.TemporaryDirectory() as work:
        shim = _compile(Path(work), real)
        box.path(found).unlink()
        shutil.copy(shim, box.path(found))
    for unit in ("systemd-homed", "homemgrd"):
        box.write(f"/etc/systemd/system/{unit}.service.d/terminals.conf", _DROP_IN)
    box.systemctl("daemon-reload")
    box.systemctl("restart", box.service)


def _compile(work: Path, real: str) -> Path:
    """The library in front of the one at ``real``."""
    # Linked to one that says it lies at that path: the real one has the name of ours.
    stand_in, shim = work / "real.so", work / SONAME
    shared = ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    _run([*shared, "-x", "c", "/dev/null", f"-Wl,-soname,{real}", "-o", str(stand_in)])
    link = ["-Wl,--no-as-needed", f"-Wl,-soname,{SONAME}", str(stand_in)]
    _run([*shared, f'-DDIRECTORY="{HIDRAW}"', str(SOURCE), *link, "-o", str(shim)])
    return shim


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def plugged_in(box: Box, *options: str) -> Iterator[str]:
    """A token with options of `authenticator`, until the end of the block; gives its device."""
    argv = [f"{PLACE}/bin/python3", _PROGRAM, "--sys", PORT, *options]
    with box.background(argv) as token:
        assert token.stdout is not None
        device = token.stdout.readline().strip()
        assert device.startswith("/dev/"), device
        try:
            yield device
        finally:
            for entry in box.path(PORT).iterdir():
                shutil.rmtree(entry)
