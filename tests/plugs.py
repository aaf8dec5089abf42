"""A disk that can be plugged in and pulled out, and a udevd that sees it: for other kernels.

The udevd, homectl and userdbctl are those of the distribution that the kernels of the guests are of
(tests/world/guest.py), in a root of their own that shares devices and runtime files. What needs no
more than files is run where it lies.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.service.site import Site

#: What tests/world/guest_init.sh puts there.
LAYER = Path("/run/kernels")
#: linux/fs.h: read the partition table again.
_BLKRRPART = 0x125F
_SHARED = ("dev", "proc", "sys", "run", "tmp")


def program(name: str) -> list[str]:
    """How a program of that distribution is run here, with the C library that it is made for."""
    libraries = LAYER / "usr/lib/x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(libraries), str(LAYER / "usr/sbin" / name)]


class Tools:
    """The programs of another distribution."""

    def __init__(self, root: Path) -> None:
        """They see ``root`` as theirs."""
        self.root = root

    def run(self, *argv: str, **environment: str) -> str:
        """What a program says; it has to succeed."""
        done = subprocess.run(
            ["chroot", str(self.root), *argv],
            env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, site: Site, *argv: str) -> str:
        """As `run`, of a program that asks a service and its user database."""
        databases = self.root / "run/systemd/userdb"
        databases.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(site.userdb_socket.parent), str(databases))
        # What tells them that there is somebody to ask.
        booted = Path("/run/systemd/system")
        booted.mkdir()
        try:
            return self.run(*argv, DBUS_SYSTEM_BUS_ADDRESS=site.bus_address)
        finally:
            booted.rmdir()
            _run("umount", str(databases))

    def settle(self) -> None:
        """Wait until udevd has done all that there is to do."""
        self.run("udevadm", "settle")


@contextmanager
def udev() -> Iterator[Tools]:
    """A udevd that has seen all devices, and the tools beside it."""
    place = Path("/run/udev-root")
    for name in ("upper", "work", "root"):
        (place / name).mkdir(parents=True)
    root = place / "root"
    layers = f"lowerdir={LAYER},upperdir={place}/upper,workdir={place}/work"
    _run("mount", "-t", "overlay", "-o", layers, "tools", str(root))
    for name in _SHARED:
        (root / name).mkdir(exist_ok=True)
        _run("mount", "--rbind", f"/{name}", str(root / name))
    # Values of a record are those of a machine.
    (root / "etc/machine-id").write_bytes(Path("/etc/machine-id").read_bytes())
    tools = Tools(root)
    daemon = subprocess.Popen(
        ["chroot", str(root), "/usr/lib/systemd/systemd-udevd"],
        env={"PATH": "/usr/sbin:/usr/bin"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: Path("/run/udev/control").exists(), "udevd to start")
        tools.run("udevadm", "trigger", "--subsystem-match=block", "--action=add")
        tools.settle()
        yield tools
    finally:
        daemon.terminate()
        daemon.wait()
        # With all that was mounted below before.
        _run("umount", "-R", "-l", str(root))


class Disk:
    """A disk in memory on a bus that disks can be pulled from; it keeps what was written."""

    def __init__(self, host: str) -> None:
        """The only disk of a host of the bus, plugged in or not."""
        self._host = host

    @property
    def node(self) -> Path | None:
        """The disk itself, while it is plugged in."""
        number = self._host.removeprefix("host")
        found = list(Path("/sys/bus/scsi/devices").glob(f"{number}:*:*:*/block/*"))
        return Path("/dev", found[0].name) if found else None

    def wait(self) -> Path:
        """The disk, once it is there."""
        wait(lambda: self.node is not None and _opens(self.node), "the disk")
        node = self.node
        assert node is not None
        return node

    def pull(self) -> None:
        """Take it away from whoever uses it."""
        node = self.node
        assert node is not None
        Path("/sys/block", node.name, "device/delete").write_text("1")
        wait(lambda: self.node is None, "the disk to go")

    def plug(self) -> Path:
        """Plug it in again."""
        Path("/sys/class/scsi_host", self._host, "scan").write_text("- - -")
        return self.wait()

    def write(self, image: Path) -> None:
        """Plug it in and put an image on it."""
        node = self.node or self.plug()
        _run("dd", f"if={image}", f"of={node}", "bs=1M", "conv=fsync", "status=none")
        # Those who look at the partitions of before are in the way, for a moment.
        wait(lambda: _reads_table(node), "the new partitions")


@contextmanager
def disks(count: int, mib: int) -> Iterator[list[Disk]]:
    """Disks of their own size each, none of them plugged in."""
    before = _hosts()
    _run("modprobe", "sd_mod")
    options = [f"add_host={count}", f"dev_size_mb={mib}", "num_tgts=1", "max_luns=1"]
    _run("modprobe", "scsi_debug", "per_host_store=1", "removable=1", "delay=0", *options)
    found = [Disk(host) for host in sorted(_hosts() - before)]
    for disk in found:
        disk.wait()
        disk.pull()
    try:
        yield found
    finally:
        _run("modprobe", "-r", "scsi_debug")


def _opens(node: Path) -> bool:
    """Whether a disk is ready; it takes a moment."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _reads_table(node: Path) -> bool:
    """Have the kernel read the partition table; False if it cannot just now."""
    try:
        with Fd.open(str(node), os.O_RDONLY | os.O_CLOEXEC) as disk:
            fcntl.ioctl(disk.fileno(), _BLKRRPART)
    except OSError:
        return False
    return True


def _hosts() -> set[str]:
    top = Path("/sys/class/scsi_host")
    return set(os.listdir(top)) if top.exists() else set()


def wait(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.02)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
