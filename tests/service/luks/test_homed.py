"""Encrypted homes go between the real systemd-homed and this service, in both directions."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.identity import filesystem_identity
from homemgr.record.jsontext import parse
from homemgr.record.signature import generate_key_pair
from homemgr.storage import luks_record
from homemgr.volume.luks import Volume
from homemgr.wire.messages import BusError
from tests import verifying, volumes
from tests.service.luks.homed import Homed
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import MANAGER, MANAGER_PATH, NAME, Service, short, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from homemgr.record.jsontext import JsonObject
    from tests.service.site import Site

#: Nobody is to wait for what is measured; and what one of both forbids.
OPTIONS = [
    "--storage=luks",
    "--luks-discard=yes",
    "--luks-pbkdf-type=pbkdf2",
    "--luks-pbkdf-time-cost=1ms",
    "--enforce-password-policy=no",
    "--rate-limit-burst=1000",
    # Sizes change when a test says so: by themselves they would after each login and logout.
    "--auto-resize-mode=off",
]
MIB = 1 << 20
#: What both have for homes: shared out among homes, more for each than a btrfs needs.
DISK = 3072 * MIB
#: As small as both make them.
SIZES = {"ext4": "52M", "btrfs": "140M", "xfs": "340M"}
#: What both make of such homes, larger and smaller.
RESIZED = {"ext4": ("80M", "56M"), "btrfs": ("352M", "320M")}


class Side:
    """One of both services, asked by the same homectl."""

    def __init__(self, homed: Homed, ours: Service | None = None) -> None:
        self._homed = homed
        self._ours = ours

    def homectl(self, *argv: str, password: str = PASSWORD, new: str = "") -> str:
        """What a command says that must succeed."""
        theirs = self._ours is not None
        done = self._homed.homectl(*argv, password=password, new=new, theirs=theirs)
        assert done.status == 0, f"{done.output}{self._homed.log.read_text()[-6000:]}"
        return done.output

    def activate(self, name: str, password: str, *more: str) -> Path:
        """Activate a home; where it is seen."""
        if more:
            self._call("ActivateHome", name, password, *more)
        else:
            self.homectl("activate", name, password=password)
        return (self._homed if self._ours is None else self._ours).path_of(name)

    def change_password(self, name: str, old: str, new: str) -> None:
        """Of an active home."""
        with self._homed.device_named(f"home-{name}"):
            self.homectl("passwd", name, password=old, new=new)

    def leave(self, name: str) -> None:
        """Deactivate a home; the kernel lets go of its file a moment later."""
        self.homectl("deactivate", name)
        file = f"/{name}.home"
        # Of ours a btrfs gets smaller before that.
        wait_until(lambda: not any(path.endswith(file) for path in verifying.loops()), file, 30)

    def resize(self, name: str, size: str, *, in_use: bool) -> None:
        """Give a home another size, before or while somebody uses it; it is not used afterwards."""
        if not in_use:
            self.homectl("resize", name, size)
            return
        self.activate(name, PASSWORD)
        with self._homed.device_named(f"home-{name}"):
            self.homectl("resize", name, size)
        self.leave(name)

    def refuses(self, name: str, password: str) -> bool:
        """Whether the home does not open with this password; homectl would ask for another."""
        with pytest.raises(BusError) as refused:
            self._call("AuthenticateHome", name, password)
        return short(refused.value.name) == "BadPassword"

    def _call(self, member: str, name: str, *words: str) -> None:
        client = (self._homed if self._ours is None else self._ours).client
        client.call(NAME, MANAGER_PATH, MANAGER, member, "ss", (name, secret(*words)))

    def create(self, name: str, kind: str, image: Path, size: str = "", *more: str) -> None:
        """Make a home whose image lies where both look for it."""
        place = [] if self._ours is None else [f"--image-path={image}"]
        how = [*OPTIONS, f"--fs-type={kind}", f"--disk-size={size or SIZES[kind]}", *place, *more]
        self.homectl("create", name, *how)
        assert image.exists()

    def wait_for(self, name: str, state: str) -> None:
        """Return when a home has reached a state."""
        (self._homed if self._ours is None else self._ours).wait_for(name, state)


class Both:
    """Both services of one machine: one directory for homes, one key, but records of their own."""

    def __init__(self, version: str, site: Site, place: Path) -> None:
        """Start both."""
        private, public = generate_key_pair()
        keys = {"local.private": private, "local.public": public}
        site.records.mkdir()
        for name, content in keys.items():
            (site.records / name).touch(0o600)
            (site.records / name).write_bytes(content)
        self.service = Service(site)
        self.homed = Homed(version, site.home_root, place, site.bus_address, keys)
        self.ours = Side(self.homed, self.service)
        self.theirs = Side(self.homed)

    def close(self) -> None:
        """End both."""
        self.homed.close()
        self.service.call("DeactivateAllHomes")
        self.service.close()


@pytest.fixture(scope="module")
def systems(new_site: Callable[..., Site], ground: Path) -> Iterator[Callable[[str], Both]]:
    """Both services, systemd-homed that of a distribution; each is started once."""
    with ExitStack() as running:

        @cache
        def of(version: str) -> Both:
            site = new_site()
            volumes.mount_image(ground / f"disk-{version}", "ext4", site.home_root, DISK)
            running.callback(mounts.umount2, str(site.home_root), mounts.MNT_DETACH)
            both = Both(version, site, ground / f"homed-{version}")
            running.callback(both.close)
            return both

        yield of
    verifying.wait_until_gone()


def write(path: Path, text: str) -> None:
    """Write to a file as the owner of its directory."""
    uid = path.parent.stat().st_uid
    with filesystem_identity(uid, uid):
        path.write_text(text)


def in_header(name: str, word: str) -> JsonObject:
    """The record in the header of an active home."""
    with Volume.of_active(f"home-{name}") as volume:
        key = volume.key_behind(word)
        assert key is not None
        found = luks_record.read(volume, key)
    assert found is not None
    return parse(found)


@pytest.mark.parametrize("begins_here", [False, True], ids=["theirs", "ours"])
@pytest.mark.parametrize(
    ("version", "kind"), [("sid", "ext4"), ("sid", "btrfs"), ("sid", "xfs"), ("debian12", "ext4")]
)
def test_a_home_goes_there_and_back(
    systems: Callable[[str], Both], version: str, kind: str, *, begins_here: bool
) -> None:
    both = systems(version)
    name = f"{kind}{int(begins_here)}"
    image = both.service.site.home_root / f"{name}.home"
    first, second = (both.ours, both.theirs) if begins_here else (both.theirs, both.ours)
    first.create(name, kind, image)
    second.wait_for(name, "unfixated")
    words = [PASSWORD, OTHER_PASSWORD]
    turns = (("one", first, second), ("two", second, first))
    if kind != "ext4":
        # What differs is the file system; the rest was shown once.
        turns = turns[1:]
    for text, side, other in turns:
        home = side.activate(name, words[0])
        assert home.stat().st_uid not in (0, 65534)
        write(home / "note", text)
        assert in_header(name, words[0]) == parse((home / ".identity").read_bytes())
        side.change_password(name, words[0], words[1])
        assert in_header(name, words[1]) == parse((home / ".identity").read_bytes())
        side.leave(name)
        words.reverse()
        assert other.refuses(name, words[1])
    for side in (first, second):
        # systemd-homed asks for the password of its own copy too, until it has the newer one.
        known = words if side is both.theirs else words[:1]
        assert (side.activate(name, *known) / "note").read_text() == "two"
        side.leave(name)
    first.homectl("remove", name)
    assert not image.exists()


def room_in(home: Path) -> int:
    """MiB of the file system of an active home."""
    disk = os.statvfs(home)
    return disk.f_blocks * disk.f_frsize >> 20


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_what_one_has_resized_the_other_opens(systems: Callable[[str], Both], kind: str) -> None:
    both = systems("sid")
    name, (large, small) = f"sized{kind}", RESIZED[kind]
    both.ours.create(name, kind, both.service.site.home_root / f"{name}.home", small)
    both.theirs.wait_for(name, "unfixated")
    home = both.ours.activate(name, PASSWORD)
    # Of what is taken from it, some has to move.
    text = secrets.token_hex(4 << 20)
    write(home / "note", text)
    rooms = {small: room_in(home)}
    both.ours.leave(name)
    for side, other in ((both.ours, both.theirs), (both.theirs, both.ours)):
        for size in (large, small):
            side.resize(name, size, in_use=size == large or kind == "btrfs")
            home = other.activate(name, PASSWORD)
            assert (home / "note").read_text() == text
            # Whoever makes it, it is as large; but systemd-homed lets a btrfs grow at its login to
            # the size that it knew before.
            if (kind, other, size) != ("btrfs", both.theirs, small):
                assert abs(room_in(home) - rooms.setdefault(size, room_in(home))) <= 1
            other.leave(name)
    assert rooms[large] - rooms[small] > 20
    both.ours.homectl("remove", name)


class Seen(NamedTuple):
    """What anybody sees of an active home from outside, in bytes."""

    image: int
    file_system: int
    #: What its user could still write.
    free: int


def seen(image: Path, home: Path) -> Seen:
    """All of it; the file system has to have all of the image but for what is before it."""
    disk = os.statvfs(home)
    sizes = (image.stat().st_size, disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)
    assert 0 < sizes[0] - sizes[1] < 20 * MIB
    return Seen(*sizes)


def test_homectl_has_homes_share_the_disk_and_they_follow(
    systems: Callable[[str], Both],
) -> None:
    both = systems("sid")
    side, place = both.ours, both.service.site.home_root
    weights, size = {"light": 100, "heavy": 200}, 300 * MIB
    images = {name: place / f"{name}.home" for name in weights}
    for name, weight in weights.items():
        more = (f"--rebalance-weight={weight}", "--auto-resize-mode=shrink-and-grow")
        side.create(name, "btrfs", images[name], "300M", *more)
        assert images[name].stat().st_size == size
    homes = {name: side.activate(name, PASSWORD) for name in weights}
    for name, home in homes.items():
        write(home / "note", name)
    side.homectl("rebalance")
    large = {name: seen(images[name], homes[name]) for name in weights}
    assert 2 * size < large["light"].image < large["heavy"].image
    assert 1.8 < large["heavy"].free / large["light"].free < 2.2
    # Others need room. So soon after a round there is none but for who asks for it.
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK // 3)
    # A home that is busy at that moment has its part in the next round.
    for _ in range(3):
        side.homectl("rebalance")
        given = [large[name].image - seen(images[name], home).image for name, home in homes.items()]
        if min(given) > 100 * MIB:
            break
    assert min(given) > 100 * MIB
    for name, home in homes.items():
        assert (home / "note").read_text() == name
    ballast.unlink()
    # Out of use it is as small as can be; in use again as large as its record says.
    side.leave("heavy")
    assert images["heavy"].stat().st_size < size
    home = side.activate("heavy", PASSWORD)
    wait_until(lambda: images["heavy"].stat().st_size >= size, "the home to grow", 15)
    assert (home / "note").read_text() == "heavy"
    # Both stay in use until the end of the service, for the time that it would take.
