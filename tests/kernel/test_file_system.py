"""A file system is made for what is to come, and looked over before it is mounted."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from homemgr.errors import BadHomeSize, DamagedFileSystem, SystemFailure, bus_name_of
from homemgr.kernel import address_space
from homemgr.volume import file_system

#: An ext4's state, and features that may be ignored: see its documentation in the kernel.
STATE, COMPATIBLE = 1024 + 58, 1024 + 92
ERRORS = b"\x02\x00"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small ext4 without checksums."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", str(path)], check=True)
    return path


def patch(image: Path, offset: int, content: bytes) -> None:
    with image.open("r+b") as file:
        os.pwrite(file.fileno(), content, offset)


def check(image: Path) -> None:
    file_system.check("ext4", str(image), "/home/anna.home")


def state(image: Path) -> bytes:
    return image.read_bytes()[STATE : STATE + 2]


def inodes(path: Path) -> int:
    told = subprocess.run(["dumpe2fs", "-h", str(path)], capture_output=True, text=True, check=True)
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("Inode count:")]
    return int(line.split()[-1])


def make(path: Path, size: int, entries: int) -> int:
    with path.open("wb") as file:
        file.truncate(size)
    file_system.make("ext4", str(path), "anna", "0a9b4a1c-6d4e-4a55-9f4e-0d1c2b3a4f5e", entries)
    subprocess.run(["e2fsck", "-f", "-n", str(path)], check=True, capture_output=True)
    return inodes(path)


@pytest.mark.parametrize(
    ("size", "entries"), [(64 << 20, 60_000), (256 << 20, 100_000), (1 << 30, 1_000_000)]
)
def test_there_is_an_inode_for_every_file_that_is_to_come(
    tmp_path: Path, size: int, entries: int
) -> None:
    usual = make(tmp_path / "usual", size, 0)
    assert usual < entries
    assert entries * 1.5 <= make(tmp_path / "more", size, entries) < entries * 1.6
    # Never fewer than without a word.
    assert make(tmp_path / "few", size, 10) == usual
    with pytest.raises(BadHomeSize, match=rf"room for {entries * 10} files .* bytes are missing"):
        make(tmp_path / "many", size, entries * 10)


@pytest.mark.parametrize(("kind", "least"), [("xfs", 300 << 20), ("btrfs", 109 << 20)])
def test_what_is_too_small_for_a_kind_is_said_with_how_much_it_needs(
    tmp_path: Path, kind: str, least: int
) -> None:
    image = tmp_path / "small"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    with pytest.raises(BadHomeSize, match=f"it has {least} bytes at least") as refused:
        file_system.make(kind, str(image), "anna", "0a9b4a1c-6d4e-4a55-9f4e-0d1c2b3a4f5e")
    assert "--fs-type=" in str(refused.value)
    with image.open("wb") as file:
        file.truncate(least + (1 << 20))
    file_system.make(kind, str(image), "anna", "0a9b4a1c-6d4e-4a55-9f4e-0d1c2b3a4f5e")


def test_what_the_program_said_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        SystemFailure, match=r"mkfs\.ext4 on /.*: Not enough space to build"
    ) as failed:
        make(tmp_path / "tiny", 4096, 0)
    assert bus_name_of(failed.value) == "System.Error.EIO"


def test_what_can_be_mended_is(image: Path) -> None:
    patch(image, STATE, ERRORS)
    check(image)
    assert state(image) == b"\x01\x00"


def test_what_cannot_be_mended_is_refused(image: Path) -> None:
    patch(image, STATE, ERRORS)
    # Its root directory is gone: no program makes another unasked.
    subprocess.run(["debugfs", "-w", "-R", "clri <2>", str(image)], check=True, capture_output=True)
    with pytest.raises(
        DamagedFileSystem, match=r"/home/anna\.home .*\(4\): .*Root inode"
    ) as refused:
        check(image)
    assert bus_name_of(refused.value) == "System.Error.EUCLEAN"
    assert "(e2fsck)" in refused.value.hint


def test_what_e2fsck_does_not_know_is_its_own_word(image: Path) -> None:
    patch(image, COMPATIBLE + 3, b"\x80")
    check(image)
    patch(image, STATE, ERRORS)
    with pytest.raises(DamagedFileSystem, match="unsupported feature"):
        check(image)


def test_it_is_killed_by_nothing(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    found = []

    def spy(*_: object, timeout: float | None, **_named: object) -> object:
        found.append((timeout, resource.getrlimit(resource.RLIMIT_AS)))
        return subprocess.CompletedProcess([], -9, b"", b"")

    monkeypatch.setattr(subprocess, "run", spy)
    address_space.limit(4 << 30)
    try:
        # But by the kernel, if memory runs out.
        with pytest.raises(DamagedFileSystem):
            check(image)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert found == [(None, (limits[1], limits[1]))]
