"""Images with a signature, opened by a kernel that checks their blocks; nothing left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from homemgr.extension import digest, release
from homemgr.extension.find import Candidate, Kind
from homemgr.extension.image import Extension, Policy, open_extension
from homemgr.kernel.userns import create_userns
from tests import verifying
from tests.kernel.extension_trees import make, tree
from tests.signed_images import BLOCK, Maker, signed_image

collect_ignore_glob = verifying.IGNORED

LOCAL = 60123
HOST = release.Host("debian", "12", "", "x86-64")

MAKER = Maker.new("maker")


class Store(NamedTuple):
    """A directory for one extension, and ways to put it there and to open it."""

    path: Path

    @property
    def image(self) -> Path:
        """Where the extension is."""
        return self.path / "tools.raw"

    def inner(self, form: str) -> bytes:
        """The file system that is to be signed."""
        source = self.path / "source"
        if not source.exists():
            tree(source, "tools")
        return make(form, source, self.path / "inner").read_bytes()

    def put(self, form: str = "erofs", maker: Maker = MAKER, **wrong: object) -> Path:
        """Store the extension as a signed disk, with nothing beside it."""
        # A file system has no smaller blocks than what it lies on, and a small ext4 has these.
        block = 1024 if form == "ext4" else BLOCK
        content = signed_image(self.inner(form), maker, block=block, **wrong)  # type: ignore[arg-type]
        self.image.write_bytes(content)
        self.image.chmod(0o644)
        return self.image

    def open(self, local_id: int = LOCAL, **policy: bool) -> Extension:
        """What a login does with it."""
        return open_extension(
            Candidate("tools", Kind.IMAGE, str(self.image)),
            host=HOST,
            local_uid=local_id,
            local_gid=local_id,
            policy=Policy(**policy),
            userns=lambda uid, gid: create_userns(f"{uid} {local_id} 1\n", f"{gid} {local_id} 1\n"),
            places=digest.Places(str(self.path / "ledger"), str(self.path / "cache")),
        )


@pytest.fixture(scope="package", autouse=True)
def unused_at_the_end(one_volume: Path) -> Iterator[None]:
    """Before it is unmounted."""
    yield
    verifying.wait_until_unused(one_volume)


@pytest.fixture
def store(area: Path) -> Iterator[Store]:
    """Where the maker is trusted; at the end no device may be left."""
    path = area / "extensions"
    path.mkdir(mode=0o755)
    certificate = verifying.trust(MAKER)
    yield Store(path)
    certificate.unlink()
    verifying.wait_until_gone()


@pytest.fixture
def modprobe() -> Iterator[Callable[[str], None]]:
    """Writes rules for modprobe(8)."""
    rules = Path("/etc/modprobe.d/homemgr-test.conf")
    yield lambda text: _write(rules, text)
    rules.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
