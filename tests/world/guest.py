"""Another kernel than that of this machine, for tests of what this one lacks.

The root of the guest is this machine's own tree, so that everything installed here runs in it;
what it writes is thrown away. Boots in two to five seconds and knows nothing of systemd or of the
product. There are two kinds: a user-mode Linux runs at the speed of the machine but has no
fs-verity; an emulated machine has all that a kernel of a distribution has, and is slow.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from .layer import REPOSITORY, Layer, mirror

if TYPE_CHECKING:
    from collections.abc import Sequence

    Kind = Literal["uml", "qemu"]

HERE = Path(__file__).parent
MEMORY = "1G"
PACKAGES = "libc6,user-mode-linux,linux-image-cloud-amd64,qemu-system-x86,virtiofsd"
#: A udevd, a homectl and an mkfs for tests in the guests, see tests/plugs.py.
PACKAGES += ",udev,dmsetup,systemd-homed,f2fs-tools"


class Done(NamedTuple):
    """What a program in it came to; ``status`` is -1 if the guest did not get as far."""

    status: int
    output: str
    console: str


def kernels() -> Layer:
    """Kernels of Debian's development suite, and what they run in."""
    # Unpacked, not installed: whatever needs a running system is not there.
    return Layer(
        name="kernels",
        recipe=f"""
            mmdebstrap --variant=extract --include={PACKAGES} \\
                --aptopt='Acquire::Check-Valid-Until "false"' \\
                --aptopt='Acquire::Check-Date "false"' \\
                sid "$PWD" "deb {mirror()} sid main"
            for name in bin lib lib64 sbin; do
                if [ ! -e $name ]; then ln -s usr/$name $name; fi
            done
            mkdir -p dev mnt proc tmp
            depmod -b "$PWD" $(ls usr/lib/modules)
        """,
        on_host=False,
        size="1G",
    )


def run(kind: Kind, argv: Sequence[str], timeout_s: float, **environment: str) -> Done:
    """Run a program in the repository as the only job of a guest, as root."""
    state = Path(tempfile.mkdtemp(prefix="homemgr-guest-"))
    try:
        shutil.copy(HERE / "guest_init.sh", state / "init.sh")
        (state / "init.sh").chmod(0o755)
        settings = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        command = [f"cd {shlex.quote(str(REPOSITORY))}", f"exec {shlex.join(argv)}"]
        (state / "job.sh").write_text("\n".join([*settings, *command, ""]))
        console = _boot(kind, state, timeout_s)
        status = _text(state / "status").strip()
        return Done(int(status or -1), _text(state / "output"), console)
    finally:
        shutil.rmtree(state)


def _boot(kind: Kind, state: Path, timeout_s: float) -> str:
    log = state / "console"
    environment = os.environ | {
        "GUEST_KIND": kind,
        "GUEST_IMAGE": str(kernels().image()),
        "GUEST_STATE": str(state),
        "GUEST_MEMORY": MEMORY,
    }
    # It ends with the tests, however these end.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "-p", "-f", "--kill-child"]
    argv += ["--propagation", "private"]
    with log.open("wb") as console:
        try:
            subprocess.run(
                [*argv, "bash", str(HERE / "guest.sh")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            console.write(f"\nstopped after {timeout_s} s\n".encode())
    return log.read_text(errors="replace")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
