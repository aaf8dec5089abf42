"""Layers: cached read-only images that, stacked, make the root of a box.

A layer is a recipe (shell text, run in a chroot over the layers below it) and the files that it
changed. It knows nothing of boxes or of the product. Images are kept under HOMEMGR_TEST_CACHE,
named after a hash of everything they were made from, and are made at most once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_SCRIPT = Path(__file__).with_name("layer.sh")
BUILD_TIMEOUT_S = 900
KEPT_VERSIONS = 3  # of one layer: switching between two branches must not rebuild each time


def words_of(file_name: str) -> str:
    """The words of a list beside this file, comments left out."""
    lines = Path(__file__).with_name(file_name).read_text().splitlines()
    return " ".join(line for line in lines if not line.startswith("#"))


def cache_directory() -> Path:
    """The directory that outlives test runs."""
    directory = Path(os.environ.get("HOMEMGR_TEST_CACHE") or REPOSITORY / ".cache")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Hold the lock of one cached thing, so that two test runs do not make it at once."""
    with (cache_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(*parts: str | bytes) -> str:
    """A short name for content."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
        state.update(b"\0")
    return state.hexdigest()[:16]


@dataclass(frozen=True)
class Layer:
    """One image, made when first asked for; the files lie in its directory "upper".

    `above` are the layers it lies on, nearest first; `on_host` puts the machine's own root under
    all. `carries` are files that the recipe finds in /tmp, named after their content.
    """

    name: str
    recipe: str
    above: tuple[Layer, ...] = ()
    on_host: bool = True
    carries: tuple[Path, ...] = ()
    size: str = "3G"

    @cached_property
    def key(self) -> str:
        """Changes with everything the image depends on, the host's packages included."""
        host = Path("/var/lib/dpkg/status").read_bytes() if self.on_host else b""
        below = [layer.key for layer in self.above]
        carried = [str(path) for path in self.carries]
        script = BUILD_SCRIPT.read_bytes()
        return digest(self.recipe, script, host, self.size, *below, *carried)

    def lowers(self) -> list[str]:
        """This layer and all below it, topmost first, as boot.sh and layer.sh take them."""
        return [f"{self.image()}:upper", *self._lowers_below()]

    def image(self) -> Path:
        """The image file, made now if it is not there."""
        path = cache_directory() / f"{self.name}-{self.key}.img"
        if not path.exists():
            with one_at_a_time(self.name):
                if not path.exists():
                    self._build(path)
        os.utime(path)
        return path

    def _lowers_below(self) -> list[str]:
        chain = [f"{layer.image()}:upper" for layer in self.above]
        return [*chain, ":/"] if self.on_host else chain

    def _build(self, path: Path) -> None:
        lowers = self._lowers_below()
        work = Path(tempfile.mkdtemp(prefix="homemgr-layer-"))
        unfinished = path.with_suffix(".new")
        environment = os.environ | {
            "LAYER_IMAGE": str(unfinished),
            "LAYER_WORK": str(work),
            "LAYER_LOWERS": " ".join(lowers),
            "LAYER_RECIPE": self.recipe,
            "LAYER_SIZE": self.size,
            "LAYER_CARRIES": " ".join(str(path) for path in self.carries),
            "DEBIAN_FRONTEND": "noninteractive",
        }
        try:
            done = subprocess.run(
                ["unshare", "-m", "--propagation", "private", "bash", str(BUILD_SCRIPT)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BUILD_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(f"cannot build the layer {self.name}:\n{done.stdout[-6000:]}")
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
        self._drop_old_versions()

    def _drop_old_versions(self) -> None:
        # An image in use stays alive through its loop device, so unlinking is always safe.
        versions = sorted(
            cache_directory().glob(f"{self.name}-????????????????.img"),
            key=lambda found: found.stat().st_mtime,
        )
        for version in versions[:-KEPT_VERSIONS]:
            version.unlink(missing_ok=True)


def debian_12() -> Layer:
    """The packages of a box, on top of this machine."""
    return Layer(
        name="packages",
        recipe=f"""
            apt-get -q -o Acquire::Check-Valid-Until=false update
            apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confnew \\
                install {words_of("packages.list")}
            apt-get clean
            rm -rf /var/lib/apt/lists/*
            systemctl mask {words_of("unwanted-units.list")}
            ssh-keygen -A
        """,
    )


def debian_sid() -> Layer:
    """A whole root of Debian's development suite: newest systemd and newest Python."""
    include = words_of("packages.list").replace(" ", ",")
    # The release files may have expired on a machine whose clock or mirror is not of today.
    return Layer(
        name="sid",
        recipe=f"""
            mmdebstrap --variant=minbase --include={include} \\
                --aptopt='Acquire::Check-Valid-Until "false"' \\
                --aptopt='Acquire::Check-Date "false"' \\
                sid "$PWD" "deb {mirror()} sid main"
            systemctl --root="$PWD" mask {words_of("unwanted-units.list")}
        """,
        on_host=False,
    )


# A one-line source with or without options, or a deb822 stanza; sources.list(5).
SOURCE = re.compile(r"^(?:deb(?:\s+\[.*?\])?|URIs:)\s+(https?://\S+)", re.MULTILINE)


def mirror() -> str:
    """Where this machine takes its Debian packages from."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]
    for found in files:
        if found.suffix in {".list", ".sources"} and found.exists():
            for uri in SOURCE.findall(found.read_text()):
                if "security" not in uri:
                    return str(uri)
    raise RuntimeError("no Debian package source is configured under /etc/apt")
