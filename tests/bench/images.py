"""Extensions of many files as images, made outside the box, where the tools for that are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from .inside.extension import CONTENT, MERGED, fill

NOBODY = 65534
#: Objects that the files of the composefs share.
OBJECTS = 256

#: overlayfs finds the content of a file by these two, see tests/kernel/extension_trees.py.
_METACOPY, _REDIRECT = "trusted.overlay.metacopy", "trusted.overlay.redirect"


def make(store: Path, count: int) -> None:
    """Fill ``store`` with one image of each kind, of ``count`` files, with their digests."""
    store.mkdir(mode=0o755)
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("erofs", "squashfs"):
            top = _tree(Path(directory) / kind, kind, count)
            _seal(_packed(kind, top, store / f"{kind}.raw"))
        pair = store / "composefs.composefs"
        _objects(pair / "objects")
        top = _tree(Path(directory) / "composefs", "composefs", count)
        for number, path in enumerate(sorted(top.glob(f"home/{MERGED}/d*/*"))):
            os.truncate(path, len(CONTENT))
            os.setxattr(path, _METACOPY, b"")
            os.setxattr(path, _REDIRECT, f"/{number % OBJECTS:02x}/object".encode())
        _seal(_packed("erofs", top, pair / "meta.erofs"))


def _tree(top: Path, name: str, count: int) -> Path:
    described = top / "usr/lib/extension-release.d"
    described.mkdir(parents=True)
    (described / f"extension-release.{name}").write_text("ID=_any\n")
    fill(top / "home" / MERGED, count)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(top / "home")], check=True)
    return top


def _objects(store: Path) -> None:
    for number in range(OBJECTS):
        directory = store / f"{number:02x}"
        directory.mkdir(parents=True)
        (directory / "object").write_bytes(CONTENT)


def _packed(kind: str, top: Path, image: Path) -> Path:
    commands = {
        "erofs": ["mkfs.erofs", "--quiet", str(image), str(top)],
        "squashfs": ["mksquashfs", str(top), str(image), "-quiet", "-no-progress"],
    }
    subprocess.run(commands[kind], check=True, stdout=subprocess.DEVNULL)
    image.chmod(0o644)
    return image


def _seal(image: Path) -> None:
    side = image.with_name(f"{image.name}.sha256")
    side.write_text(hashlib.sha256(image.read_bytes()).hexdigest())
    side.chmod(0o644)
