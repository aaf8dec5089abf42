"""The outer half of `homemgr demo`: namespaces around the rest, and their end.

Everything the inner half starts, mounts or writes lives in namespaces of its own, so
that it is gone with its first process, however that one ends; and it ends with us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from homemgr.errors import AccessDenied, NotSupported

if TYPE_CHECKING:
    from types import FrameType

#: Tells the inner half that it is one.
INSIDE = "HOMEMGR_DEMO_INSIDE"
_TOOLS = {
    "dbus-daemon": "dbus-daemon",
    "findmnt": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE_S = 10
#: Where this package is: a checkout that is not installed has to find itself.
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run() -> int:
    """Show it in namespaces of its own and leave nothing behind."""
    _check()
    handlers = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        return _inside()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _check() -> None:
    if os.geteuid() != 0:
        raise AccessDenied("Only root may mount: try `sudo homemgr demo`.")
    missing = [tool for tool in _TOOLS if not shutil.which(tool, path=_PATH)]
    if missing:
        packages = " ".join(sorted({_TOOLS[tool] for tool in missing}))
        raise NotSupported(
            f"The demonstration needs {', '.join(missing)}: apt-get install {packages}"
        )


def _inside() -> int:
    # Killed, we take the inner half along; a pid namespace too, as with its first process
    # every other one in it ends.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare"]
    command += ["--mount", "--propagation", "private", "--pid", "--fork"]
    command += ["--kill-child", "--mount-proc", "--", *program("homemgr"), "demo"]
    # The variables of the caller may point a service at the real homes.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SYSTEMD_HOME_")}
    environment |= {INSIDE: "1", "PATH": _PATH, "PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1"}
    # A group of its own: ^C comes to us alone, and we tell the inner half.
    child = subprocess.Popen(command, env=environment, process_group=0)
    try:
        return child.wait()
    finally:
        _end_of(child)


def _end_of(child: subprocess.Popen[bytes]) -> None:
    """End ``child`` and all it started, unless it has ended by itself."""
    if child.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        # unshare's parent-death signal takes the whole pid namespace along.
        child.kill()
        child.wait()


def program(name: str) -> list[str]:
    """The command for one of our own programs, whether it is installed or run from a checkout."""
    code = (
        f"import sys; from homemgr.entry import {name}; sys.argv[0] = {name!r}; sys.exit({name}())"
    )
    return [sys.executable, "-c", code]


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
