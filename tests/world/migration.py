"""What tests of migrations do over and over: somebody with a home full of odd things, the commands.

Knows where homes lie while they come, are used and have left. Must not know how machines are
connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from homemgr.transfer.frames import Data
from homemgr.transfer.untar import End, Member, Reader
from homemgr.work.export import Manifest

from .. import homes
from . import machines, users
from .box import Box, Result
from .users import User

#: Differs in every home that has moved: it is signed where it is used.
IDENTITY = (b".identity",)


@contextmanager
def traveller(here: Box, there: Box) -> Iterator[User]:
    """A user of the one machine, gone from both afterwards."""
    user = users.create(here)
    top = here.path(user.image)
    (top / "odd").mkdir()
    homes.make_odd_home(top / "odd")
    try:
        yield user
    finally:
        for box in (here, there):
            forget(box, user)


def forget(box: Box, user: User) -> None:
    """Whatever a test did, nothing of this user is on this machine afterwards."""
    machines.plug_in(box)
    box.run(["systemctl", "restart", "homemgrd.service"])
    box.run(["homemgr", "remove", user.name], check=False)
    box.run(["homemgr", "transfers", "forget", user.name, "--remove"], check=False)


def homemgr(box: Box, *words: str, check: bool = True, timeout: float = 120) -> Result:
    """homemgr WORDS."""
    return box.run(["homemgr", *words], check=check, timeout=timeout)


def migrate(box: Box, user: User, *words: str, check: bool = True) -> Result:
    """homemgr migrate USER WORDS, where the other machine is trusted."""
    return homemgr(box, "migrate", user.name, *words, "--trust", "--no-pager", check=check)


def on_disk(box: Box, user: User) -> Path:
    """The files of a home."""
    return box.path(f"/home/.homemgr/{user.name}.homedir")


def kept(box: Box, user: User) -> Path:
    """The files of a home that has left; those of systemd-homed lay in /home itself."""
    places = (box.path("/home/.homemgr"), box.path("/home"))
    (found,) = (path for top in places for path in top.glob(f".#homemgr-left-{user.name}.*"))
    return found


def is_usable(box: Box, user: User) -> bool:
    """Whether the password opens a home there."""
    argv = ["homemgr", "with", user.name, "--", "test", "-e", ".identity"]
    return box.run(argv, env={"PASSWORD": user.password}, check=False).code == 0


class Edited(NamedTuple):
    """An archive whose manifest fits what was done to it, and the digest in that."""

    archive: bytes
    digest: str


def edited(archive: bytes, old: bytes, new: bytes) -> Edited:
    """Replace something in the home that an export holds, by something as long."""
    assert archive.count(old) == 1
    assert len(old) == len(new)
    changed = archive.replace(old, new)
    before, after = _digest(archive), _digest(changed)
    return Edited(changed.replace(before.encode(), after.encode()), after)


def _digest(archive: bytes) -> str:
    manifest, is_home = Manifest(), False
    for event in Reader().feed(archive):
        if isinstance(event, Member):
            is_home = not event.document
            if is_home:
                manifest.entry(event.path, event.entry)
        elif isinstance(event, Data) and is_home:
            manifest.data(event.offset, event.data)
        elif isinstance(event, End) and is_home:
            manifest.end_file()
    return str(manifest.to_json()["digest"])
