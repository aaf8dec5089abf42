"""Pairs whose objects are sealed with fs-verity: the kernel checks each, and says so."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
from pathlib import Path

import pytest

from homemgr.errors import ExtensionDamaged
from homemgr.extension import digest, release
from homemgr.extension.find import Candidate, Kind
from homemgr.extension.image import Extension, Policy, open_extension
from homemgr.files import Fd, read_limited
from homemgr.kernel.userns import create_userns
from homemgr.kernel.verity import measure
from tests.kernel.extension_trees import make, own, seal
from tests.kernel.fsverity.conftest import Disk

LOCAL = 60123
HOST = release.Host("debian", "12", "", "x86-64")

#: The files of the extension, each with an object of its own.
FILES = {name: random.Random(name).randbytes(16384) for name in ("first", "second")}

#: struct fsverity_enable_arg: version, algorithm (SHA-256), size of blocks; salt, signature.
ENABLE_ARGUMENT = struct.pack("=IIIIQIIQ88x", 1, 1, 4096, 0, 0, 0, 0, 0)
FS_IOC_ENABLE_VERITY = 0x40806685


def enable(path: Path) -> str:
    """Seal a file; its digest from then on."""
    with Fd.open(str(path), os.O_RDONLY) as file:
        fcntl.ioctl(file.fileno(), FS_IOC_ENABLE_VERITY, ENABLE_ARGUMENT)
        return measure(file.fileno())


def put(top: Path, *, names_digests: bool = True, is_sealed: bool = True) -> Path:
    """A composefs pair as mkcomposefs makes it."""
    pair = top / "tools.composefs"
    source = top / "source"
    described = source / "usr/lib/extension-release.d"
    described.mkdir(parents=True)
    (described / "extension-release.tools").write_text("ID=_any\n", encoding="utf-8")
    (source / "home/.local/share").mkdir(parents=True)
    for name, content in FILES.items():
        stored = pair / "objects" / name
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(content)
        measured = enable(stored) if is_sealed else "sha256:" + "00" * 32
        # Of the file itself only the size is left; data and checks are the object's.
        file = source / "home/.local/share" / name
        with file.open("wb") as empty:
            empty.truncate(len(content))
        raw = bytes.fromhex(measured.partition(":")[2])
        metacopy = bytes([0, 4 + len(raw), 0, 1]) + raw if names_digests else b""
        os.setxattr(file, "trusted.overlay.metacopy", metacopy)
        os.setxattr(file, "trusted.overlay.redirect", f"/{name}".encode())
    own(source / "home", 65534)
    seal(make("erofs", source, pair / "meta.erofs"))
    return pair


def opened(pair: Path) -> Extension:
    return open_extension(
        Candidate("tools", Kind.COMPOSEFS, str(pair)),
        host=HOST,
        local_uid=LOCAL,
        local_gid=LOCAL,
        policy=Policy(),
        userns=lambda uid, gid: create_userns(f"{uid} {LOCAL} 1\n", f"{gid} {LOCAL} 1\n"),
        places=digest.Places(str(pair.parent / "ledger"), str(pair.parent / "cache")),
    )


def read(extension: Extension, name: str) -> bytes:
    layer = extension.layer(".local/share")
    assert layer is not None
    with layer, Fd.open(name, os.O_RDONLY, dir_fd=layer.fileno()) as file:
        # To its end: what comes before a bad block is read all the same.
        return read_limited(file.fileno(), 1 << 20, name)


def replace(pair: Path, name: str) -> Path:
    """Put another object in the place of the right one."""
    other = pair / "objects/new"
    other.write_bytes(FILES[name][::-1])
    return other.rename(pair / "objects" / name)


def test_sealed_objects_are_the_users_files(disk: Disk) -> None:
    with opened(put(disk.top)) as extension:
        for name, content in FILES.items():
            assert read(extension, name) == content


@pytest.mark.parametrize("is_sealed", [True, False])
def test_another_object_in_its_place_cannot_be_opened(disk: Disk, is_sealed: bool) -> None:
    pair = put(disk.top)
    other = replace(pair, "second")
    if is_sealed:
        enable(other)
    with opened(pair) as extension:
        assert read(extension, "first") == FILES["first"]
        with pytest.raises(OSError, match="Input/output") as caught:
            read(extension, "second")
        assert caught.value.errno == errno.EIO


def test_the_object_that_is_looked_at_tells_at_once(disk: Disk) -> None:
    pair = put(disk.top)
    enable(replace(pair, "first"))
    with pytest.raises(ExtensionDamaged, match=r"Object first of .* is sha256:.* metadata expects"):
        opened(pair)
    (pair / "objects/first").unlink()
    with pytest.raises(ExtensionDamaged, match=r"Object first of .* is missing"):
        opened(pair)


def test_a_bit_that_fell_over_on_the_disk_is_no_content(disk: Disk) -> None:
    pair = put(disk.top)
    disk.damage(FILES["second"][8192:8256])
    with opened(pair) as extension:
        assert read(extension, "first") == FILES["first"]
        with pytest.raises(OSError, match="Input/output"):
            read(extension, "second")
    disk.forget()


@pytest.mark.parametrize("names_digests", [True, False])
def test_without_seals_the_digest_of_the_metadata_counts(disk: Disk, names_digests: bool) -> None:
    pair = put(disk.top, names_digests=names_digests, is_sealed=not names_digests)
    with opened(pair) as extension:
        for name, content in FILES.items():
            assert read(extension, name) == content
