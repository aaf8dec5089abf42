"""`.identity` and blobs in a directory whose owner is hostile."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import HostileHome, InvalidArgs
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import blobs, embedded
from homemgr.storage.top import Top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWNER = 60123
SECRET = b"only root may read this"


@pytest.fixture
def home(area: Path) -> Path:
    """A home as its owner may leave it, beside a file that is none of his."""
    path = area / "home"
    path.mkdir(mode=0o700)
    os.chown(path, OWNER, OWNER)
    (area / "secret").write_bytes(SECRET)
    (area / "secret").chmod(0o600)
    return path


@pytest.fixture
def top(home: Path) -> Iterator[Top]:
    """The home, opened as the worker does."""
    with Top(Fd.open(str(home), DIRECTORY_FLAGS), str(home)) as opened:
        yield opened


def put(path: Path, data: bytes = b"{}", owner: int = OWNER) -> None:
    path.write_bytes(data)
    os.chown(path, owner, owner)


def test_record_is_read_and_its_absence_is_no_error(home: Path, top: Top) -> None:
    assert embedded.read_identity(top) is None
    put(home / ".identity", b"record")
    assert embedded.read_identity(top) == b"record"


def link(home: Path) -> None:
    (home / ".identity").symlink_to(home.parent / "secret")


def dangling(home: Path) -> None:
    (home / ".identity").symlink_to("nowhere")


def fifo(home: Path) -> None:
    os.mkfifo(home / ".identity")


def device(home: Path) -> None:
    os.mknod(home / ".identity", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def unix_socket(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / ".identity"))


def directory(home: Path) -> None:
    (home / ".identity").mkdir()


def hard_link(home: Path) -> None:
    os.link(home.parent / "secret", home / ".identity")


def own_hard_link(home: Path) -> None:
    put(home / "mine")
    os.link(home / "mine", home / ".identity")


def foreign(home: Path) -> None:
    put(home / ".identity", SECRET, owner=0)


def huge(home: Path) -> None:
    put(home / ".identity")
    os.truncate(home / ".identity", 1 << 34)


def one_too_large(home: Path) -> None:
    put(home / ".identity", b"x" * (embedded.IDENTITY_LIMIT + 1))


HOSTILE = [
    link,
    dangling,
    fifo,
    device,
    unix_socket,
    directory,
    hard_link,
    own_hard_link,
    foreign,
    huge,
    one_too_large,
]


@pytest.mark.parametrize("trick", HOSTILE)
@pytest.mark.timeout(10)
def test_hostile_record_is_not_read(home: Path, top: Top, trick: Callable[[Path], None]) -> None:
    trick(home)
    with pytest.raises(HostileHome, match=str(home / ".identity")):
        embedded.read_identity(top)


def test_mount_over_the_record_is_not_read(home: Path, top: Top) -> None:
    put(home / ".identity")
    subprocess.run(["mount", "--bind", home.parent / "secret", home / ".identity"], check=True)
    try:
        with pytest.raises(HostileHome):
            embedded.read_identity(top)
    finally:
        subprocess.run(["umount", home / ".identity"], check=True)


GROW = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(fd, b"x" * 4096)
print(flush=True)
while os.fstat(fd).st_size < 64 << 20:
    os.write(fd, b"x" * 4096)
"""


def test_record_that_grows_while_it_is_read_ends(
    home: Path, top: Top, other_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    put(home / ".identity")
    grower = other_process(GROW, str(home / ".identity"))
    # Complete or refused, but never endless.
    with suppress(HostileHome):
        assert len(embedded.read_identity(top) or b"") <= embedded.IDENTITY_LIMIT
    grower.wait(20)
    with pytest.raises(HostileHome, match="larger than"):
        embedded.read_identity(top)


def test_largest_record_is_read(home: Path, top: Top) -> None:
    put(home / ".identity", b"x" * embedded.IDENTITY_LIMIT)
    assert len(embedded.read_identity(top) or b"") == embedded.IDENTITY_LIMIT


@pytest.mark.parametrize("trick", [t for t in HOSTILE if t is not directory])
def test_writing_replaces_any_trick_and_touches_nothing_else(
    home: Path, top: Top, trick: Callable[[Path], None]
) -> None:
    trick(home)
    embedded.write_identity(top, b"record")
    assert embedded.read_identity(top) == b"record"
    found = (home / ".identity").stat()
    assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (home.parent / "secret").read_bytes() == SECRET
    assert set(os.listdir(home)) <= {".identity", "mine"}


def test_directory_in_the_records_place_is_refused(home: Path, top: Top) -> None:
    directory(home)
    with pytest.raises(HostileHome, match="is a directory"):
        embedded.write_identity(top, b"record")
    assert os.listdir(home) == [".identity"]


def test_tricks_in_the_temporary_files_place_do_not_help(home: Path, top: Top) -> None:
    (home / ".identity.homemgr-new").symlink_to(home.parent / "secret")
    embedded.write_identity(top, b"one")
    (home / ".identity.homemgr-new").mkdir()
    embedded.write_identity(top, b"two")
    assert embedded.read_identity(top) == b"two"
    assert (home.parent / "secret").read_bytes() == SECRET
    assert sorted(os.listdir(home)) == [".identity", ".identity.homemgr-new"]


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Two blobs as the daemon passes them."""
    (tmp_path / "avatar").write_bytes(b"face")
    (tmp_path / "background").write_bytes(b"b" * 300_000)
    names = {"avatar": "avatar", "login-background": "background"}
    opened = {name: Fd.open(str(tmp_path / file), os.O_RDONLY) for name, file in names.items()}
    yield {name: fd.fileno() for name, fd in opened.items()}
    for fd in opened.values():
        fd.close()


def contents(found: dict[str, Fd]) -> dict[str, bytes]:
    result = {}
    for name, fd in found.items():
        with fd:
            result[name] = os.pread(fd.fileno(), 1 << 20, 0)
    return result


def test_blobs_come_back_as_they_went_in(top: Top, home: Path, pictures: dict[str, int]) -> None:
    manifest = blobs.manifest_of(pictures)
    assert manifest["avatar"] == hashlib.sha256(b"face").hexdigest()
    assert blobs.read_blobs(top, manifest) == {}
    for _again in range(2):
        blobs.write_blobs(top, pictures)
        expected = {"avatar": b"face", "login-background": b"b" * 300_000}
        assert contents(blobs.read_blobs(top, manifest)) == expected
    assert {path.stat().st_uid for path in home.rglob("*")} == {OWNER}
    assert stat.S_IMODE((home / ".identity-blob").stat().st_mode) == 0o700
    assert os.listdir(home) == [".identity-blob"]
    blobs.write_blobs(top, {})
    assert os.listdir(home) == []


def test_what_the_manifest_does_not_vouch_for_is_left_out(
    top: Top, home: Path, pictures: dict[str, int]
) -> None:
    blobs.write_blobs(top, pictures)
    manifest = blobs.manifest_of(pictures)
    put(home / ".identity-blob" / "avatar", b"grin")
    put(home / ".identity-blob" / "extra")
    (home / ".identity-blob" / "secret").symlink_to(home.parent / "secret")
    manifest["secret"] = hashlib.sha256(SECRET).hexdigest()
    manifest["../../secret"] = manifest["secret"]
    assert list(contents(blobs.read_blobs(top, manifest))) == ["login-background"]


def test_copies_of_blobs_cannot_be_changed_any_more(top: Top, pictures: dict[str, int]) -> None:
    blobs.write_blobs(top, pictures)
    found = blobs.read_blobs(top, blobs.manifest_of(pictures))
    for fd in found.values():
        with fd, pytest.raises(PermissionError):
            os.write(fd.fileno(), b"x")


def test_hostile_blob_directory_is_not_followed(
    top: Top, home: Path, pictures: dict[str, int]
) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "avatar").write_bytes(b"untouched")
    (home / ".identity-blob").symlink_to(elsewhere)
    (home / ".identity-blob.homemgr-new").symlink_to(elsewhere)
    with pytest.raises(HostileHome, match="must be a directory"):
        blobs.read_blobs(top, {"avatar": "00"})
    (home / ".identity-blob").unlink()
    assert blobs.read_blobs(top, {"avatar": "00"}) == {}
    blobs.write_blobs(top, pictures)
    assert (elsewhere / "avatar").read_bytes() == b"untouched"
    assert (home / ".identity-blob" / "avatar").read_bytes() == b"face"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "ä", "a b", "x" * 256])
def test_names_that_no_blob_may_have_are_refused(
    top: Top, home: Path, pictures: dict[str, int], name: str
) -> None:
    with pytest.raises(InvalidArgs):
        blobs.write_blobs(top, {name: pictures["avatar"]})
    assert os.listdir(home) == []


def test_too_many_bytes_are_refused_before_anything_is_written(
    top: Top, home: Path, tmp_path: Path
) -> None:
    with Fd.open(str(tmp_path / "big"), os.O_RDWR | os.O_CREAT) as big:
        os.ftruncate(big.fileno(), blobs.BLOBS_LIMIT + 1)
        with pytest.raises(InvalidArgs, match="bytes"):
            blobs.write_blobs(top, {"avatar": big.fileno()})
    assert os.listdir(home) == []
