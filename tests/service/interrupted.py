"""What is done to a home when the power goes, and what has to be true when it is back.

Each takes one user through something that changes his home on disk: before it, `prepare` has
all as it is to be; after it, `check` says whether it happened. What was answered has happened.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.wire.messages import BusError
from tests import homes
from tests.service import converting, people
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.resizing import MIB
from tests.service.site import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.cutting import Machine
    from tests.service.site import Service

USER = "anna"
#: How a home of each kind is made.
FIELDS: dict[str, dict[str, object]] = {
    "directory": {"storage": "directory"},
    "subvolume": {"storage": "subvolume"},
    "fscrypt": {"storage": "fscrypt"},
    "image": {
        "storage": "directory",
        "org.homemgr.storage": "image",
        "diskSize": 40 * MIB,
        "luksDiscard": True,
    },
    "image of btrfs": {
        "storage": "directory",
        "org.homemgr.storage": "image",
        "fileSystemType": "btrfs",
        "diskSize": 320 * MIB,
        "luksDiscard": True,
    },
    "image of xfs": {
        "storage": "directory",
        "org.homemgr.storage": "image",
        "fileSystemType": "xfs",
        "diskSize": 336 * MIB,
        "luksDiscard": True,
    },
    "luks": {"storage": "luks", "diskSize": 48 * MIB, "luksDiscard": True},
    "full image": {
        "storage": "directory",
        "org.homemgr.storage": "image",
        "diskSize": 40 * MIB,
    },
}
#: What everybody has: slots that are quick to make, and guesses as often as is needed.
SETTINGS: dict[str, object] = {
    "rateLimitBurst": 100_000,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
}
#: What the service and the tests write; all else has to stay as it is.
APART = (b".identity", b".identity.homemgr-new", b".identity-blob", b"diary")


class Interrupted(ABC):
    """One thing that is done, over and over, on one machine."""

    def __init__(self, machine: Machine, kind: str) -> None:
        """Make a user with a home of a kind, and all of it on disk."""
        self.machine = machine
        self.kind = kind
        self.words = [PASSWORD]
        self.make()

    def make(self) -> None:
        """Make the home."""
        self.service.create(USER, **{**SETTINGS, **FIELDS[self.kind]})
        with self.open() as home:
            fill(home)
            self.whole = homes.Seen.of(home, APART)
        os.sync()

    @property
    def service(self) -> Service:
        """Of now."""
        return self.machine.service

    @property
    def base(self) -> Path:
        """Where homes lie."""
        return self.machine.site.base

    @abstractmethod
    def prepare(self) -> None:
        """Have all as it is before."""

    @abstractmethod
    def work(self) -> None:
        """Do it."""

    @abstractmethod
    def has_happened(self) -> bool:
        """Whether it was done; fails if it is neither."""

    def check(self) -> bool:
        """Whether it was done; fails if the home is not whole, or anything is left of it."""
        done = self.has_happened()
        self.check_home()
        self.check_leftovers()
        return done

    def check_home(self) -> None:
        """All of the home is there, and opens with its password."""
        with self.open() as home:
            seen = homes.Seen.of(home, APART)
        found = [words for words in self.whole.differences(seen) if not is_of_top(words)]
        assert found == [], found

    def check_leftovers(self) -> None:
        """Nothing is wrong, and nothing half made is left."""
        (text,) = converting.call(self.service, "CheckHomes", "s", "")
        assert json.loads(str(text)) == [], text
        lying = [path for place in self.places() for path in place.glob(".#*")]
        assert lying == self.rooms(), lying
        site = self.machine.site
        for directory in (site.records, site.blobs):
            # Something may just be written there.
            wait_until(lambda top=directory: not [*top.rglob(".#*")], "what is unfinished to go")

    def places(self) -> list[Path]:
        """Where homes may lie."""
        return [self.base]

    def rooms(self) -> list[Path]:
        """Rooms that are there for a reason."""
        return []

    @contextmanager
    def open(self, *words: str) -> Iterator[Path]:
        """Use the home with its password, or with others; gives where it is."""
        self.service.call("ActivateHome", "ss", USER, secret(*(words or self.words)))
        try:
            yield self.service.path_of(USER)
        finally:
            self.service.deactivate(USER)

    def job(self, member: str, *arguments: object) -> dict[str, object]:
        """Have something done by a member of our own; gives the result."""
        path = converting.call(self.service, member, "s" * len(arguments), *arguments)[0]
        return converting.wait(self.service, str(path))


def is_of_top(words: str) -> bool:
    """What of the top directory no two homes have in common."""
    return words.startswith(("b'': mtime", "b'': xattrs", "b'': mode"))


def fill(home: Path, seed: int = 1) -> None:
    """Some files of the user, with everything that is not simply content."""
    chance = random.Random(seed)
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid), homes.opened(-100, os.fsencode(home)) as top:
        for size in (0, 1, 4096, 70_000, 1_000_000):
            homes.write(top, b"%d" % size, (0, chance.randbytes(size)), size=size)
        homes.write(top, b"holes", (1 << 20, b"middle"), size=3 << 20)
        with homes.entered(top, b"many") as many:
            for number in range(12):
                homes.write(many, b"%d" % number, (0, chance.randbytes(100 * number)))
            os.link("1", "again", src_dir_fd=many, dst_dir_fd=many)
        with homes.entered(top, b"empty"):
            pass
        os.symlink("many/1", "link", dir_fd=top)
        os.setxattr(home / "4096", "user.x", b"value")


class Resizing(Interrupted):
    """An image that nobody uses gets another size, back and forth."""

    sizes = 320 * MIB, 352 * MIB

    def prepare(self) -> None:
        """Go to the other size than the one of now."""
        before = self.size()
        self.goal = self.sizes[before == self.sizes[0]]

    def size(self) -> int:
        """Of the image."""
        (image,) = self.base.glob(f"{USER}.home*")
        return image.stat().st_size

    def work(self) -> None:
        """Have it."""
        self.service.call("ResizeHome", "sts", USER, self.goal, secret(*self.words))

    def has_happened(self) -> bool:
        """It has one of both, or is on its way, which the same command goes on with."""
        return self.size() == self.goal

    def check(self) -> bool:
        """Also once more to its end."""
        done = super().check()
        self.work()
        assert self.size() == self.goal
        super().check()
        return done


class Shrinking(Resizing):
    """An ext4 that nobody uses gets smaller, again and again."""

    def prepare(self) -> None:
        """Less than now, or begin anew."""
        if self.size() < 36 * MIB:
            self.service.call("RemoveHome", "s", USER)
            self.make()
        self.goal = self.size() - MIB

    def check(self) -> bool:
        """Growing, which the same size once more is, takes more rights than tests may have."""
        return Interrupted.check(self) if self.size() == self.goal else super().check()


class Password(Interrupted):
    """The password is changed."""

    def prepare(self) -> None:
        """To the other one."""
        (self._old,) = self.words
        self._new = OTHER_PASSWORD if self._old == PASSWORD else PASSWORD

    def work(self) -> None:
        """Change it."""
        change = (USER, secret(self._new), secret(self._old))
        self.service.call("ChangePasswordHome", "sss", *change)

    def has_happened(self) -> bool:
        """Exactly one of both opens it."""
        wrong = "ActivateHome", "ss", USER
        try:
            with self.open(self._new):
                self.words = [self._new]
        except BusError:
            self.words = [self._old]
        other = self._old if self.words == [self._new] else self._new
        assert self.service.error(*wrong, secret(other)) == "BadPassword"
        return self.words == [self._new]


class Use(Interrupted):
    """The user logs in and writes; the power goes before he has logged out."""

    def __init__(self, machine: Machine, kind: str) -> None:
        """Nothing is written yet."""
        self._written: dict[str, bytes] = {}
        super().__init__(machine, kind)

    def prepare(self) -> None:
        """Nothing is needed."""

    def use(self) -> None:
        """Log in, and have something on disk."""
        self.service.activate(USER)
        home = self.service.path_of(USER)
        name, content = f"written-{len(self._written)}", os.urandom(200_000)
        uid = home.stat().st_uid
        with filesystem_identity(uid, uid), (home / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # From here on it has to stay; what only its directory knows of does not.
            self._written[name] = content
            (home / "unwritten").write_bytes(content)

    def work(self) -> None:
        """Use it."""
        self.use()

    def check_home(self) -> None:
        """With what was written since."""
        with self.open() as home:
            for name, content in self._written.items():
                assert (home / name).read_bytes() == content
                (home / name).unlink()
            (home / "unwritten").unlink(missing_ok=True)
            os.sync()
        self._written.clear()
        super().check_home()

    def has_happened(self) -> bool:
        """Nothing is to happen."""
        return True


class Leave(Use):
    """The user logs out after that."""

    def prepare(self) -> None:
        """Have him log in."""
        self.use()

    def work(self) -> None:
        """Log out."""
        self.service.deactivate(USER)


class Update(Interrupted):
    """The record changes, and the picture that goes with it."""

    _number = 0

    def prepare(self) -> None:
        """To another one each time."""
        self._before = self._now()
        self._number += 1
        self._goal = f"Name {self._number}"

    def _now(self) -> str:
        return str(self.service.user_record(USER).get("realName", ""))

    def work(self) -> None:
        """Change both."""
        record = people.record(USER, realName=self._goal, rateLimitBurst=100_000)
        with tempfile.TemporaryFile() as picture:
            picture.write(self._goal.encode())
            picture.flush()
            fds = [Fd(os.dup(picture.fileno()))]
            arguments = people.text(record), {"avatar": 0}, 0
            with fds[0]:
                self.service.call("UpdateHomeEx", "sa{sh}t", *arguments, fds=fds)

    def has_happened(self) -> bool:
        """The picture is that of the record, inside and outside."""
        with self.open():
            pass
        now = self._now()
        assert now in (self._before, self._goal), now
        shown = self.machine.site.blobs / USER / "avatar"
        assert (shown.read_text() if shown.exists() else "") == now
        return now == self._goal


class Creation(Interrupted):
    """Somebody else gets a home."""

    _number = 0

    def prepare(self) -> None:
        """Of another name each time."""
        if self._number and self.name in self.service.states():
            self.service.call("RemoveHome", "s", self.name)
        self._number += 1
        self.name = f"new{self._number}"

    def work(self) -> None:
        """Make it."""
        self.service.create(self.name, **{**SETTINGS, **FIELDS[self.kind]})

    def has_happened(self) -> bool:
        """It can be used, or was never there."""
        if self.name not in self.service.states():
            assert [path for path in self.base.iterdir() if self.name in path.name] == []
            self.work()
            return False
        self.service.activate(self.name)
        self.service.deactivate(self.name)
        return True


class Removal(Creation):
    """Somebody else goes."""

    def prepare(self) -> None:
        """Make him, with something in his home."""
        super().prepare()
        super().work()
        self.service.activate(self.name)
        fill(self.service.path_of(self.name))
        self.service.deactivate(self.name)
        os.sync()

    def work(self) -> None:
        """Have him removed."""
        self.service.call("RemoveHome", "s", self.name)

    def has_happened(self) -> bool:
        """He is there, or gone."""
        if self.service.states().get(self.name) == "inactive":
            self.service.activate(self.name)
            self.service.deactivate(self.name)
            return False
        assert self.name not in self.service.states()
        super().work()
        return True
