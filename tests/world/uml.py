"""A user-mode Linux: another kernel, with what the one of this machine may lack, as a process.

Its root is this machine's own tree, so that everything installed here runs in it; what it writes
is thrown away. Boots in two seconds and knows nothing of systemd or of the product.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .layer import REPOSITORY, Layer, mirror

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
MEMORY = "1G"


class Done(NamedTuple):
    """What a program in it came to; ``status`` is -1 if the machine did not get as far."""

    status: int
    output: str
    console: str


def kernel() -> Layer:
    """The kernel of Debian's development suite, its modules, and the C library it wants."""
    # Unpacked, not installed: whatever needs a running system is not there.
    return Layer(
        name="uml",
        recipe=f"""
            mmdebstrap --variant=extract --include=libc6,user-mode-linux \\
                --aptopt='Acquire::Check-Valid-Until "false"' \\
                --aptopt='Acquire::Check-Date "false"' \\
                sid "$PWD" "deb {mirror()} sid main"
            for name in bin lib lib64 sbin; do
                if [ ! -e $name ]; then ln -s usr/$name $name; fi
            done
            mkdir -p dev mnt proc tmp
        """,
        on_host=False,
        size="512M",
    )


def run(argv: Sequence[str], timeout_s: float, **environment: str) -> Done:
    """Run a program in the repository as the only job of a machine of its own, as root."""
    state = Path(tempfile.mkdtemp(prefix="homemgr-uml-"))
    try:
        (state / "layer").mkdir()
        shutil.copy(HERE / "uml_init.sh", state / "init.sh")
        (state / "init.sh").chmod(0o755)
        settings = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        command = [f"cd {shlex.quote(str(REPOSITORY))}", f"exec {shlex.join(argv)}"]
        (state / "job.sh").write_text("\n".join([*settings, *command, ""]))
        console = _boot(state, timeout_s)
        status = _text(state / "status").strip()
        return Done(int(status or -1), _text(state / "output"), console)
    finally:
        shutil.rmtree(state)


def _boot(state: Path, timeout_s: float) -> str:
    log = state / "console"
    machine = {"UML_IMAGE": str(kernel().image()), "UML_STATE": str(state), "UML_MEMORY": MEMORY}
    argv = ["unshare", "-m", "-p", "-f", "--kill-child", "--propagation", "private"]
    with log.open("wb") as console:
        try:
            subprocess.run(
                [*argv, "bash", str(HERE / "uml.sh")],
                env=os.environ | machine,
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
