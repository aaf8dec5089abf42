"""systemd-homed of a distribution: the real one, in a root of its own, on a bus of its own.

It needs no other part of systemd. It sees the homes of the test and keeps everything else, so
that both are like two machines with one disk.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from homemgr.kernel import device_mapper, mounts
from homemgr.wire.client import Client
from tests.service.bus import Bus
from tests.service.people import PASSWORD
from tests.service.site import MANAGER, MANAGER_PATH, NAME, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Its layers, topmost first, as tests/world/product.py gives them to guests.
LAYERS = "HOMEMGR_TEST_LOWERS_homed_{}"

#: It wants to be the root of its namespace, not only of its process, or it makes no user
#: namespaces; and whatever its workers mount has to be seen by all of them.
_INSIDE = """
set -eu
cd "$1"
mount --make-rprivate /
pivot_root . mnt
umount -l /mnt
mount --make-rshared /
exec env DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/ours/bus /usr/lib/systemd/systemd-homed
"""

_DIRECTORIES = (
    "run/ours",
    "run/theirs",
    "run/systemd/system",
    "run/systemd/home",
    "var/lib/systemd/home",
    "var/cache/systemd/home",
)


class Said(NamedTuple):
    """How homectl ended."""

    status: int
    output: str


class Homed:
    """One systemd-homed whose /home is ``home``; `close` ends it and leaves nothing mounted."""

    def __init__(
        self, version: str, home: Path, place: Path, other_bus: str, keys: Mapping[str, bytes]
    ) -> None:
        """Start it with ``keys``, by file name.

        ``other_bus`` is the address where its homectl shall find the other service.
        """
        self._place = place
        self._root = place / "root"
        self._mounted: list[Path] = []
        self._build(os.environ[LAYERS.format(version)].split(), home)
        for name, key in keys.items():
            path = self._root / "var/lib/systemd/home" / name
            path.touch(0o600)
            path.write_bytes(key)
        self._bus = Bus(place / "bus")
        self._show(place / "bus", "run/ours")
        self._show(Path(other_bus.removeprefix("unix:path=")).parent, "run/theirs")
        self.log = place / "log"
        with self.log.open("ab") as log:
            namespace = ["unshare", "--mount", "--propagation", "unchanged"]
            self._process = subprocess.Popen(
                [*namespace, "bash", "-c", _INSIDE, "homed", str(self._root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "SYSTEMD_LOG_LEVEL": "debug"},
            )
        self.client = Client(self._bus.address)
        wait_until(self._is_there, "systemd-homed to be on its bus", 20)

    def _build(self, layers: Sequence[str], home: Path) -> None:
        lowers = []
        for number, layer in enumerate(layers):
            image, _, directory = layer.partition(":")
            if image:
                lower = self._place / f"layer{number}"
                lower.mkdir(parents=True)
                self._mount("-o", "ro,loop", image, str(lower))
                directory = f"{lower}/{directory}"
            lowers.append(directory)
        for name in ("upper", "work", "root"):
            (self._place / name).mkdir()
        upper = f"upperdir={self._place}/upper,workdir={self._place}/work"
        options = f"lowerdir={':'.join(lowers)},{upper}"
        self._mount("-t", "overlay", "-o", options, "root", str(self._root))
        for kind, name in (("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            self._mount("-t", kind, kind, str(self._root / name))
        self._show(Path("/dev"), "dev")
        for name in _DIRECTORIES:
            (self._root / name).mkdir(parents=True, exist_ok=True)
        self._show(home, "home")
        machine_id = self._root / "etc/machine-id"
        machine_id.unlink(missing_ok=True)
        machine_id.write_text(Path("/etc/machine-id").read_text())

    def _show(self, source: Path, name: str) -> None:
        self._mount("--bind", str(source), str(self._root / name))

    def _mount(self, *argv: str) -> None:
        subprocess.run(["mount", *argv], check=True)
        self._mounted.append(Path(argv[-1]))

    @property
    def address(self) -> str:
        """Of its bus."""
        return self._bus.address

    def _is_there(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        return bool(self.client.call(*bus, "NameHasOwner", "s", (NAME,)).body[0])

    def path_of(self, name: str) -> Path:
        """Where an active home of it is seen."""
        return Path(f"/proc/{self._process.pid}/root/home/{name}")

    @contextmanager
    def device_named(self, name: str) -> Iterator[None]:
        """What udev does for an active home, and only udev: the device has its name in /dev."""
        with device_mapper.open_control() as control:
            found = device_mapper.status(control.fileno(), name)
        assert found is not None
        link = Path("/dev/mapper", name)
        link.unlink(missing_ok=True)
        link.symlink_to(found.path)
        try:
            yield
        finally:
            link.unlink(missing_ok=True)

    def states(self) -> dict[str, str]:
        """The states of all its homes."""
        (rows,) = self.client.call(NAME, MANAGER_PATH, MANAGER, "ListHomes", "", ()).body
        return {row[0]: row[2] for row in rows}  # type: ignore[attr-defined]

    def wait_for(self, name: str, state: str) -> None:
        """Return when a home has reached ``state``."""
        try:
            wait_until(lambda: self.states().get(name) == state, f"{name} to be {state} there", 8)
        except AssertionError as late:
            raise AssertionError(self.log.read_text()[-6000:]) from late

    def homectl(
        self, *argv: str, password: str = PASSWORD, new: str = "", theirs: bool = False
    ) -> Said:
        """Its own homectl, with it or with the other service."""
        bus = "theirs" if theirs else "ours"
        # Where it would ask a person for another password nobody ever answers.
        command = ["timeout", "30", "chroot", str(self._root), "homectl", *argv]
        done = subprocess.run(
            command,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path=/run/{bus}/bus",
                "PASSWORD": password,
                "NEWPASSWORD": new or password,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout)

    def close(self) -> None:
        """End it and take its root away."""
        self.client.close()
        self._process.terminate()
        self._process.wait(20)
        self._bus.close()
        for path in reversed(self._mounted):
            mounts.umount2(str(path), mounts.MNT_DETACH)
