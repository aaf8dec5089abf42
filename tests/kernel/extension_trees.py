"""Extensions for the tests, in every form they can be stored in."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

from tests.disk_images import ROOT_X86_64, Part, gpt_image

TOOL = "#!/bin/sh\necho tool\n"
#: Nothing that compresses, so that every image has some length.
BIG = random.Random(4711).randbytes(16384)


def tree(path: Path, name: str, owner: int = 65534, release: str = "ID=_any\n") -> Path:
    """A tree with two hierarchies and a plain file; a directory extension of that name."""
    described = path / "usr/lib/extension-release.d"
    described.mkdir(parents=True)
    (described / f"extension-release.{name}").write_text(release)
    for directory in (".local/bin", ".config/corp"):
        (path / "home" / directory).mkdir(parents=True)
    (path / "home/.local/bin/tool").write_text(TOOL)
    (path / "home/.local/bin/tool").chmod(0o755)
    (path / "home/.config/corp/big").write_bytes(BIG)
    (path / "home/.bashrc").write_text("# never merged\n")
    own(path / "home", owner)
    path.chmod(0o700)
    return path


def own(path: Path, owner: int) -> None:
    """Give a whole tree to somebody."""
    os.chown(path, owner, owner)
    for directory, names, files in os.walk(path):
        for name in names + files:
            os.chown(os.path.join(directory, name), owner, owner, follow_symlinks=False)


def make(kind: str, source: Path, image: Path) -> Path:
    """An image of a tree, in a file system or on a disk."""
    if kind == "erofs":
        run("mkfs.erofs", "--quiet", str(image), str(source))
    elif kind == "squashfs":
        run("mksquashfs", str(source), str(image), "-quiet", "-no-progress")
    elif kind == "ext4":
        run("mkfs.ext4", "-q", "-F", "-d", str(source), str(image), "4M")
    elif kind.startswith("gpt-"):
        inner = make(kind.removeprefix("gpt-"), source, image.with_suffix(".inner"))
        image.write_bytes(gpt_image([Part(ROOT_X86_64, inner.read_bytes())]))
        inner.unlink()
    # mksquashfs follows the umask of whoever runs the tests.
    image.chmod(0o644)
    return image


def seal(image: Path) -> None:
    """Store the digest of an image beside it."""
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    side = image.with_name(image.name + ".sha256")
    side.write_text(f"{digest}  {image.name}\n")
    side.chmod(0o644)


def pair(path: Path, name: str, owner: int = 65534) -> Path:
    """A composefs pair, its metadata marked by hand as mkcomposefs would."""
    source = tree(path.with_name(f".{name}.source"), name, owner)
    (path / "objects/ab").mkdir(parents=True)
    big = source / "home/.config/corp/big"
    (path / "objects/ab/cdef").write_bytes(BIG)
    # Of the file itself only the size is left; data and checks are the object's.
    with big.open("wb") as file:
        file.truncate(len(BIG))
    os.setxattr(big, "trusted.overlay.metacopy", b"")
    os.setxattr(big, "trusted.overlay.redirect", b"/ab/cdef")
    seal(make("erofs", source, path / "meta.erofs"))
    return path


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def fingerprint(path: Path) -> str:
    """A digest over names, owners, modes, times, attributes and content of a file or tree."""
    digest = hashlib.sha256()
    for item in sorted([path, *path.rglob("*")]):
        found = item.lstat()
        times = found.st_mtime_ns, found.st_ctime_ns
        digest.update(repr((str(item), found.st_mode, found.st_uid, found.st_gid, times)).encode())
        digest.update(repr(os.listxattr(item, follow_symlinks=False)).encode())
        if item.is_file() and not item.is_symlink():
            digest.update(item.read_bytes())
    return digest.hexdigest()
