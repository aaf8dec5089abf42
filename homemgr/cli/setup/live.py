"""The running system: telling systemd, the bus and sshd about changed files.

Only called for the tree we live in, and does nothing where systemd is not the
first process. Never stops a unit that would deactivate homes on its way out.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from homemgr.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.setup.tree import Tree

HOMED = "systemd-homed.service"
HOMED_ACTIVATE = "systemd-homed-activate.service"
HOMED_FIRSTBOOT = "systemd-homed-firstboot.service"
OURS = "homemgrd.service"
OURS_ACTIVATE = "homemgr-activate.service"
#: Where packages put units.
UNIT_BASES = ("/usr/lib", "/lib")
# Longer than the time a service may take to stop (TimeoutStopSec=3min).
_SECONDS = 200


def is_running(tree: Tree) -> bool:
    """Whether there is a service manager to talk to."""
    return tree.is_running_system and os.path.isdir("/run/systemd/system")


def is_homed_installed(tree: Tree) -> bool:
    """Whether systemd-homed could be started, masked or not."""
    return any(tree.exists(f"{base}/systemd/system/{HOMED}") for base in UNIT_BASES)


def is_active(unit: str) -> bool:
    """Whether ``unit`` runs, or did what it does once."""
    return _systemctl("is-active", "--quiet", unit).returncode == 0


def stop_homed(say: Callable[[str], None]) -> None:
    """Stop systemd-homed while its unit file still says how; homes stay active."""
    if is_active(HOMED):
        _must("stop", HOMED)
        say(f"stopped:  {HOMED}, active homes stay active")


def take_over(say: Callable[[str], None]) -> None:
    """After the files are there: start our service."""
    _must("daemon-reload")
    # Masked by now: with its definition gone, stopping the activation unit runs
    # no `homectl deactivate-all`. A bus call may have started the other one again.
    for unit in (HOMED_ACTIVATE, HOMED):
        if is_active(unit):
            _must("stop", unit)
    _reload_bus()
    # Restart, not start: after an update the running one is the old program.
    _must("restart", OURS)
    _must("start", OURS_ACTIVATE)
    say(f"started:  {OURS}")
    _reload_ssh(say)


def stop_ours(say: Callable[[str], None]) -> None:
    """Stop our service while its unit file still says how; homes stay active."""
    if is_active(OURS):
        _must("stop", OURS)
        say(f"stopped:  {OURS}, active homes stay active")


def give_back(tree: Tree, say: Callable[[str], None], *, homed_ran: bool) -> None:
    """After the files are gone: forget our units, start systemd-homed if it ran or is enabled."""
    _must("daemon-reload")
    # Without its definition the first stops without deactivating anything; a bus
    # call may have started the second again.
    for unit in (OURS_ACTIVATE, OURS):
        if is_active(unit):
            _must("stop", unit)
    # The starts of systemd-homed are counted: a few changes of hands in a row would refuse one.
    _systemctl("reset-failed", OURS, OURS_ACTIVATE, HOMED)
    _reload_bus()
    if not is_homed_installed(tree):
        say("remark:   systemd-homed is not installed, so no service has the homes")
    # Enabled but not running before: set up in an image, where nothing runs.
    elif homed_ran or _systemctl("is-enabled", "--quiet", HOMED).returncode == 0:
        _must("start", HOMED)
        say(f"started:  {HOMED}")
    _reload_ssh(say)


def _reload_bus() -> None:
    # dbus-daemon and dbus-broker alike; a bus that is not up yet reads its files at start.
    if is_active("dbus.service"):
        _must("reload", "dbus.service")


def _reload_ssh(say: Callable[[str], None]) -> None:
    for unit in ("ssh.service", "sshd.service"):
        if is_active(unit):
            # A unit checks its configuration before it reloads; a refusal is worth a word only.
            done = _systemctl("reload", unit)
            say(f"reloaded: {unit}" if done.returncode == 0 else f"remark:   {unit}: {done.stderr}")
            return


def _must(*arguments: str) -> None:
    # The last words of systemctl say which unit failed, and where its log is.
    done = _systemctl(*arguments)
    if done.returncode:
        detail = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise NotSupported(f"`systemctl {' '.join(arguments)}` failed: {detail}")


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", "--no-ask-password", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotSupported(
            f"`systemctl {' '.join(arguments)}` did not end within {_SECONDS} seconds."
        ) from error
