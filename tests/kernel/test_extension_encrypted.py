"""Merging into a home that the file system encrypts, see Documentation/filesystems/fscrypt.rst.

Nothing can be renamed into an encrypted directory from outside: work directories have to be
inside the home.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel import loop, mounts
from tests import volumes
from tests.kernel import overlays
from tests.kernel.overlays import BIN, NOBODY, SHARE, cleaned, marks_on, merged

_FS_IOC_ADD_ENCRYPTION_KEY = 0xC0506617
_FS_IOC_SET_ENCRYPTION_POLICY = 0x800C6613
_BY_IDENTIFIER = 2
_AES_256_XTS, _AES_256_CTS, _PAD_32 = 1, 4, 3
_IDENTIFIER = slice(8, 24)

FILES = {
    f"{BIN}/tool": "#!/bin/sh\necho one\n",
    f"{BIN}/other": "other",
    f"{SHARE}/app/data": "data\n",
}


@pytest.fixture
def encrypted(ground: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system whose directories can be encrypted."""
    image, target = tmp_path / "image", ground / "encrypted"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "encrypt", str(image)], check=True)
    target.mkdir()
    with Fd.open(str(image), os.O_RDWR) as backing:
        device = loop.attach(backing.fileno())
    with device.device:
        volumes.mount_new("ext4", device.path, target)
    yield target
    mounts.umount2(str(target), 0)
    target.rmdir()


def encrypt(directory: Path) -> None:
    """Have all that is made in the empty ``directory`` from now on encrypted with a new key."""
    key = os.urandom(64)
    argument = bytearray(struct.pack("=II32sII32s", _BY_IDENTIFIER, 0, b"", len(key), 0, b"") + key)
    with Fd.open(str(directory), os.O_RDONLY) as fd:
        try:
            fcntl.ioctl(fd.fileno(), _FS_IOC_ADD_ENCRYPTION_KEY, argument)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOPKG):
                raise
            pytest.skip("this kernel encrypts no directories")
        identifier = bytes(argument[_IDENTIFIER])
        modes = (2, _AES_256_XTS, _AES_256_CTS, _PAD_32, 0)
        policy = struct.pack("=5B3x16s", *modes, identifier)
        fcntl.ioctl(fd.fileno(), _FS_IOC_SET_ENCRYPTION_POLICY, policy)


def test_an_encrypted_home_is_merged_changed_and_clean_again(encrypted: Path) -> None:
    with (
        overlays.home(encrypted, {}) as home,
        overlays.extension(encrypted, "tools", FILES) as tools,
    ):
        for path in home.stored.iterdir():
            path.unlink()
        encrypt(home.stored)
        (home.stored / ".profile").write_text("umask 022\n")
        overlays.chown_all(home.stored)
        with merged(home, [tools]) as result:
            assert (result.merged, result.skipped) == ([BIN, SHARE], {})
            script = (
                "echo x >> .local/share/app/data; rm .local/bin/other; .local/bin/tool;"
                " mv .local/bin/tool .local/bin/renamed; mkdir .local/share/new;"
                " mv .profile .local/share/new/"
            )
            assert overlays.sh(script, home.seen) == "one\n"
        assert cleaned(home).problems == []
        assert marks_on(home) == []
        assert home.owners() == {(NOBODY, NOBODY)}
        assert sorted(str(p.relative_to(home.stored)) for p in home.stored.rglob("*")) == [
            ".homemgr", ".homemgr/extensions.json", ".local", ".local/bin", ".local/bin/renamed",
            SHARE, f"{SHARE}/app", f"{SHARE}/app/data", f"{SHARE}/new", f"{SHARE}/new/.profile",
        ]  # fmt: skip
        with merged(home, [tools]):
            assert (home.seen / SHARE / "app/data").read_text() == "data\nx\n"
            assert os.listdir(home.seen / BIN) == ["renamed"]
        cleaned(home)
