"""The PAM stack, through Debian's pam-auth-update: our profile in, systemd-homed's out, and back.

The stack files are never edited here: pam-auth-update owns them and keeps what
the administrator changed. In an image it runs inside (chroot), since it keeps
its state in the debconf database of the system it runs on. See pam-auth-update(8).
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from homemgr.cli.setup import plan
from homemgr.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.cli.setup.journal import Journal
    from homemgr.cli.setup.tree import Tree

PROGRAM = "/usr/sbin/pam-auth-update"
#: The profile of package systemd-homed, whose refusals are not final.
THEIRS = "systemd-homed"
OURS = tuple(plan.PAM)
_FACT = "pam_profile_of_homed_was_enabled"
_SECONDS = 120


def is_possible(tree: Tree) -> bool:
    """Whether this tree's stack is managed by pam-auth-update."""
    return tree.exists(PROGRAM) and tree.exists("/etc/pam.d/common-auth")


def is_enabled(tree: Tree, profile: str) -> bool:
    """Whether ``profile`` is part of the stack now."""
    stacks = ("/var/lib/pam/auth", "/var/lib/pam/password")
    return any(f"Module: {profile}\n" in tree.text(path) for path in stacks)


def _has_ours(tree: Tree) -> bool:
    return all(is_enabled(tree, profile) for profile in OURS)


def enable(tree: Tree, journal: Journal, say: Callable[[str], None]) -> None:
    """Put our profile into the stack in the place of systemd-homed's."""
    if not is_possible(tree):
        say("left out: PAM, this is no system with pam-auth-update. Lines for the stack by hand:")
        say("  " + _auth_line(tree))
        return
    if _has_ours(tree) and not is_enabled(tree, THEIRS):
        say("in place: the PAM stack")
        return
    journal.facts.setdefault(_FACT, is_enabled(tree, THEIRS))
    journal.save()
    _run(tree, "--package", "--disable", THEIRS, "--enable", *OURS)
    if not _has_ours(tree) or "pam_systemd_home" not in tree.text("/etc/pam.d/common-auth"):
        raise NotSupported(
            "pam-auth-update left /etc/pam.d alone, most likely because common-* were edited by "
            "hand. Run `pam-auth-update --force` to have it write them anew, then setup again."
        )
    say("changed:  the PAM stack (pam-auth-update) asks for the home at each login")


def disable(tree: Tree, journal: Journal, say: Callable[[str], None]) -> None:
    """Take our profile out and put systemd-homed's back if it was there."""
    if not is_possible(tree) or _FACT not in journal.facts:
        return
    # Its package may be gone, and with it the profile.
    is_there = tree.exists(f"{plan.PAM_PROFILES}/{THEIRS}")
    again = ("--enable", THEIRS) if journal.facts[_FACT] and is_there else ()
    _run(tree, "--package", "--remove", *OURS, *again)
    if any(is_enabled(tree, profile) for profile in OURS):
        raise NotSupported(
            "pam-auth-update left /etc/pam.d alone, so logins still use our profiles. "
            "Run `pam-auth-update` and deselect them, then unsetup again."
        )
    say("changed:  the PAM stack (pam-auth-update) is as before")


def _auth_line(tree: Tree) -> str:
    lines = tree.text(f"{plan.PAM_PROFILES}/{OURS[0]}").split("Auth:\n")[-1].splitlines()
    return " ".join(lines[1].split()) if len(lines) > 1 else "auth pam_systemd_home.so"


def _run(tree: Tree, *options: str) -> None:
    enter = [] if tree.is_running_system else ["chroot", tree.root]
    # Without a terminal debconf must not try to ask; its own defaults are what we pass.
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            [*enter, PROGRAM, *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotSupported(f"pam-auth-update did not end within {_SECONDS} seconds.") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise NotSupported(f"pam-auth-update failed ({done.returncode}): {lines[-1]}")
