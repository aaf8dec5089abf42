"""A home goes through all the storages that its file system can hold, with a login at each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .. import homes, walks
from . import logins
from .conftest import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .box import Box, Result
    from .users import User

#: Both generations of clients.
FILES = (("/etc/homemgr/homemgr.conf", "[Home]\nGraceSec=0\n"),)
WORLDS = (World(files=FILES), World(base="sid", file_system="btrfs", files=FILES))
#: Of every subvolume.
TOP_INODE = 256
SUFFIXES = {"image": ".homeimage"}
BASE, ELSEWHERE = "/home/.homemgr", "/home/elsewhere"
IMAGE_BYTES = "--disk-size=128M"

#: The record is signed anew with each conversion; the diary is written at each login.
APART = (b".identity", b"diary")


@pytest.fixture
def elsewhere(box: Box, nothing_left: None) -> Iterator[str]:
    """Another directory for homes, which has to be empty in the end."""
    made = box.path(ELSEWHERE)
    made.mkdir(0o700)
    yield ELSEWHERE
    made.rmdir()


class Traveller:
    """A user, what the user saw in the beginning, and what was written since."""

    def __init__(self, user: User) -> None:
        self.user, self.box = user, user.box
        self.diary: list[str] = []
        self.seen: homes.Seen | None = None
        self._complaints: dict[tuple[str, str], set[str]] = {}

    def log_in(self, word: str) -> None:
        """A session, with the home as it was, and clients that know the user before and after."""
        self.assert_known("inactive")
        self.diary.append(word)
        command = f"echo {word} >>diary; cat diary; stat -c %u . diary; echo inside; read x"
        with logins.ssh_on_terminal(self.box, self.user.name, command=command) as terminal:
            terminal.answer(logins.PASSWORD_PROMPT, self.user.password)
            said = terminal.expect("inside").split()
            uid = str(self.user.uid)
            assert said[-len(self.diary) - 3 :] == [*self.diary, uid, uid, "inside"]
            self.assert_known("active")
            seen = homes.Seen.of(self.box.path(self.user.home), APART)
            self.seen = self.seen or seen
            assert b"odd/_links/z/both" in seen.entries
            assert _without_top(self.seen.differences(seen)) == []
            terminal.send("out")
            assert terminal.finish().code == 0
        self.user.wait_until("inactive", 30)

    def assert_known(self, state: str) -> None:
        """The clients of systemd show the user, and complain about no more than at first."""
        assert self.user.state() == state
        for argv in (["homectl", "inspect"], ["userdbctl", "user"]):
            shown = self.box.run([*argv, self.user.name])
            assert f"User name: {self.user.name}" in shown.stdout
            # Of fields that are younger than a client it says where they are.
            said = {line.split(": ", 1)[-1] for line in shown.stderr.splitlines()}
            assert self._complaints.setdefault((argv[0], state), said) >= said

    def convert(self, *options: str) -> Result:
        """homemgr convert, with the password."""
        argv = ["homemgr", "convert", self.user.name, *options]
        return self.box.run(argv, env={"PASSWORD": self.user.password})

    def storage(self) -> str:
        """What the home is, as it lies on disk while nobody uses it."""
        image = self.box.path(self.user.image)
        if image.is_file():
            return "image"
        if "odd" not in os.listdir(image):
            return "fscrypt"
        is_subvolume = self.box.file_system == "btrfs" and image.stat().st_ino == TOP_INODE
        return "subvolume" if is_subvolume else "directory"

    def rooms(self) -> list[str]:
        """What is kept of homes."""
        places = (self.box.path(BASE), self.box.path(ELSEWHERE))
        return [found.name for place in places for found in place.glob(".#homemgr-room-*")]


def _without_top(words: list[str]) -> list[str]:
    # The record comes into it anew, and key slots are attributes of it.
    return [text for text in words if not text.startswith(("b'': mtime", "b'': xattrs"))]


def test_from_each_storage_to_each_other(
    box: Box, elsewhere: str, new_user: Callable[..., User]
) -> None:
    alice = Traveller(new_user())
    odd = box.path(alice.user.image) / "odd"
    odd.mkdir()
    homes.make_odd_home(odd)
    alice.log_in("first")
    _, *others = walks.ON_ONE_DISK[box.file_system]
    place = BASE
    for number, storage in enumerate(others):
        options = [f"--storage={storage}", *([IMAGE_BYTES] if storage == "image" else [])]
        if number == 1:
            # Undone it is the home that it was, and is converted again.
            former = alice.user.image
            alice.convert(*options)
            assert alice.storage() == storage
            alice.convert("--undo")
            assert (alice.user.image, alice.rooms()) == (former, [])
            assert alice.storage() == others[0]
            alice.log_in("undone")
        if number in (3, 5):
            place = elsewhere if place == BASE else BASE
            options.append(f"--to={place}/{alice.user.name}{SUFFIXES.get(storage, '.homedir')}")
        alice.convert(*options)
        assert os.path.dirname(alice.user.image) == place
        assert alice.storage() == storage
        alice.log_in(storage)
        assert len(alice.rooms()) == 1
        alice.convert("--confirm")
        assert alice.rooms() == []
