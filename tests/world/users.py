"""People with a home in a box: made by the real homectl, watched from outside.

Knows homectl's words and where homes lie; must not know which service answers beyond that path.
"""

from __future__ import annotations

import itertools
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homemgr.record.uids import candidates

from . import logins
from .box import wait_for
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .box import Box, Result

NOBODY = (65534, 65534)
MANAGER = (
    *("busctl", "call", "org.freedesktop.home1", "/org/freedesktop/home1"),
    "org.freedesktop.home1.Manager",
)
# Tests log in far more often than people do.
CREATE = (
    *("--storage=directory", "--enforce-password-policy=no"),
    *("--rate-limit-interval=1s", "--rate-limit-burst=1000"),
)
_numbers = itertools.count(1)
_UNMAPPED = 60513


@dataclass
class User:
    """One account of a box and the password that opens it."""

    box: Box
    name: str
    password: str

    @property
    def home(self) -> str:
        """The home directory."""
        return f"/home/{self.name}"

    @property
    def uid(self) -> int:
        """The local uid, as the name service says."""
        return int(self.box.run(["id", "-u", self.name]).stdout)

    @property
    def image(self) -> str:
        """Where the files lie on disk, as the record says."""
        record = self.record()
        return str(record["binding"][self.box.machine_id]["imagePath"])

    def record(self) -> dict[str, Any]:
        """The user record as root sees it."""
        shown = self.homectl("inspect", "--json=short").stdout
        record: dict[str, Any] = json.loads(shown)
        return record

    def homectl(
        self, verb: str, *arguments: str, check: bool = True, new_password: str = ""
    ) -> Result:
        """homectl VERB NAME ARGUMENTS, with the password in the environment."""
        env = {"PASSWORD": self.password}
        if new_password:
            env["NEWPASSWORD"] = new_password
        return self.box.run(["homectl", verb, self.name, *arguments], env=env, check=check)

    def homectl_refuses(self, verb: str, password: str, new_password: str = "") -> None:
        """homectl VERB with a wrong password says so; it would then ask for another."""
        env = {"PASSWORD": password}
        if new_password:
            env["NEWPASSWORD"] = new_password
        with Terminal(self.box, ["homectl", verb, self.name], env=env) as terminal:
            terminal.expect("Password incorrect or not sufficient")

    def state(self) -> str:
        """The state that `homectl list` shows; empty if there is no such home."""
        listed = self.box.run(["homectl", "list", "--json=short"], check=False).stdout
        homes = json.loads(listed) if listed.startswith("[") else []
        return next((home["state"] for home in homes if home["name"] == self.name), "")

    def wait_until(self, state: str, timeout_s: float = 15.0) -> None:
        """Wait for a state, which is all that clients can do: it is not signalled."""
        wait_for(lambda: self.state() == state, f"{self.name} is {state}", timeout_s)

    def is_mounted(self) -> bool:
        """Whether PID 1 of the box sees a mount on the home."""
        return self.home in self.box.mounts()

    def ssh(self, command: str = "true", *, method: str = "password", check: bool = True) -> Result:
        """Log in by ssh with the password and run a command."""
        return logins.ssh(self.box, self.name, self.password, command, method=method, check=check)

    @contextmanager
    def active(self) -> Iterator[None]:
        """The home active, as root would hold it."""
        self.homectl("activate")
        try:
            yield
        finally:
            self.homectl("deactivate")

    def owners_on_disk(self) -> dict[tuple[int, int], list[str]]:
        """Who owns what below the image, its top included, without any idmapping."""
        found: dict[tuple[int, int], list[str]] = {}
        top = self.box.path(self.image)
        for path in (top, *walk(top)):
            status = path.lstat()
            found.setdefault((status.st_uid, status.st_gid), []).append(str(path))
        return found


def _number() -> int:
    """The next number whose name does not get the one uid that systemd-homed cannot map."""
    # Of 60513 it maps the disk's twice, fails, and gives all files another owner instead.
    return next(n for n in _numbers if next(candidates(f"alice{n}")) != _UNMAPPED)


def create(box: Box, *options: str, name: str = "", password: str = "") -> User:
    """A new user, by the real homectl."""
    number = _number()
    user = User(box, name or f"alice{number}", password or f"open sesame {number}")
    argv = ["homectl", "create", user.name, *CREATE, *options]
    box.run(argv, env={"NEWPASSWORD": user.password})
    return user


def remove(user: User) -> None:
    """End what the user still does and remove the account; one that is gone already is fine."""
    if not user.state():
        return
    user.box.run(["loginctl", "terminate-user", user.name], check=False)
    user.box.run(["homectl", "deactivate", user.name], check=False)
    user.wait_until("inactive")
    user.homectl("remove")


@contextmanager
def at_work(user: User) -> Iterator[Terminal]:
    """A session at a prompt, left in order; the home goes with it."""
    with logins.ssh_on_terminal(user.box, user.name) as terminal:
        terminal.answer(logins.PASSWORD_PROMPT, user.password)
        terminal.expect(r"[$] $")
        yield terminal
        terminal.send("exit")
        terminal.finish()
    user.wait_until("inactive")


def walk(top: Path) -> Iterator[Path]:
    """Every path below a directory, symbolic links not followed."""
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            yield Path(directory) / name
