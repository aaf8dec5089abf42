"""The blobs inside a home: `.identity-blob`, pictures and the like that go with the record.

Reads only what a manifest of checksums vouches for, and copies it before it is
judged: the home's owner may change the original meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr.errors import HostileHome, InvalidArgs
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd, write_all
from homemgr.kernel.identity import filesystem_identity
from homemgr.kernel.openat2 import openat2
from homemgr.kernel.rename import RENAME_EXCHANGE, renameat2
from homemgr.storage import subvolume
from homemgr.storage.guarded import RESOLVE_GUARDED, hostile, open_guarded
from homemgr.storage.tree import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.storage.top import Top

BLOBS = ".identity-blob"

#: All blobs of a home together.
BLOBS_LIMIT = 64 << 20

#: Fixed, so that what a killed run left is found and removed by the next.
_BLOBS_NEW = ".identity-blob.homemgr-new"

_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")

#: A copy that was judged once cannot become something else.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

_CHUNK = 1 << 18


def read_blobs(top: Top, manifest: Mapping[str, str]) -> dict[str, Fd]:
    """The embedded blobs that are what ``manifest`` (name to SHA-256) says, as sealed copies.

    Whatever is missing, misnamed or different is left out, as systemd-homed does it.
    """
    copies = _read_blobs(top, BLOBS, manifest)
    missing = {name: manifest[name] for name in manifest.keys() - copies.keys()}
    if missing:
        # What was replaced is beside it until the record follows. Anything else there is nothing.
        with suppress(HostileHome):
            copies |= _read_blobs(top, _BLOBS_NEW, missing)
    return copies


def _read_blobs(top: Top, place: str, manifest: Mapping[str, str]) -> dict[str, Fd]:
    try:
        directory = openat2(top.fd.fileno(), place, DIRECTORY_FLAGS, RESOLVE_GUARDED)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise hostile(top.fd, place, "a directory", error) from error
    copies: dict[str, Fd] = {}
    left = BLOBS_LIMIT
    with directory:
        for name, digest in sorted(manifest.items()):
            copy = _read_blob(directory, name, top.disk_uid, left)
            if copy is None:
                continue
            # Judged is the copy: the original may be another by now.
            if digest_of(copy.fileno()) != digest:
                copy.close()
                continue
            left -= os.fstat(copy.fileno()).st_size
            copies[name] = copy
    return copies


def write_blobs(top: Top, blobs: Mapping[str, int]) -> None:
    """Make ``blobs`` (name to open file) all that is in `.identity-blob`, swapped in as a whole."""
    with replaced(top, blobs):
        pass


@contextmanager
def replaced(top: Top, blobs: Mapping[str, int]) -> Iterator[None]:
    """The same for a block that has the record name them: those before go after it.

    If the block fails or is killed both are there, and `finish` finds out which are named.
    """
    check_blobs(blobs)
    with subvolume.written(top.fd), filesystem_identity(top.disk_uid, top.disk_gid):
        # Also what a run that was killed left behind.
        _discard(top.fd, _BLOBS_NEW)
        try:
            if blobs:
                place_blobs(top.fd, blobs, _BLOBS_NEW)
            _swap(top.fd.fileno(), is_empty=not blobs)
        except BaseException:
            _discard(top.fd, _BLOBS_NEW)
            raise
        os.fsync(top.fd.fileno())
    yield
    with subvolume.written(top.fd), filesystem_identity(top.disk_uid, top.disk_gid):
        _discard(top.fd, _BLOBS_NEW)
        os.fsync(top.fd.fileno())


def is_half_done(top: Top) -> bool:
    """Whether somebody has begun to replace blobs and was killed, or has failed."""
    try:
        os.stat(_BLOBS_NEW, dir_fd=top.fd.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def finish(top: Top, manifest: Mapping[str, str]) -> bool:
    """Of those before and those after have what ``manifest`` names; False if neither are that."""
    with subvolume.written(top.fd), filesystem_identity(top.disk_uid, top.disk_gid):
        if not _holds(top, BLOBS, manifest):
            if not _holds(top, _BLOBS_NEW, manifest):
                return False
            _swap(top.fd.fileno(), is_empty=False)
        _discard(top.fd, _BLOBS_NEW)
        if not manifest:
            _discard(top.fd, BLOBS)
        os.fsync(top.fd.fileno())
    return True


def _holds(top: Top, place: str, manifest: Mapping[str, str]) -> bool:
    """Whether all that is there, and nothing else, is what ``manifest`` names."""
    try:
        with openat2(top.fd.fileno(), place, DIRECTORY_FLAGS, RESOLVE_GUARDED) as directory:
            there = set(os.listdir(directory.fileno()))
    except OSError:
        there = set()
    found = _read_blobs(top, place, manifest) if there == manifest.keys() else {}
    for fd in found.values():
        fd.close()
    return there == manifest.keys() == found.keys()


def place_blobs(parent: Fd, blobs: Mapping[str, int], name: str = BLOBS) -> None:
    """Fill the new directory ``name``; for a caller with the identity of the home's owner."""
    os.mkdir(name, 0o700, dir_fd=parent.fileno())
    with openat2(parent.fileno(), name, DIRECTORY_FLAGS, RESOLVE_GUARDED) as directory:
        # Whatever the umask made of it.
        os.fchmod(directory.fileno(), 0o700)
        left = BLOBS_LIMIT
        for blob, source in sorted(blobs.items()):
            left -= _write_blob(directory.fileno(), blob, source, left)
        os.fsync(directory.fileno())


def manifest_of(blobs: Mapping[str, int]) -> dict[str, str]:
    """Name and SHA-256 of each blob, as `blobManifest` has them."""
    check_blobs(blobs)
    return {name: digest_of(fd) for name, fd in sorted(blobs.items())}


def check_blobs(blobs: Mapping[str, int]) -> None:
    """`InvalidArgs` unless all names and the total size are allowed."""
    total = 0
    for name, fd in blobs.items():
        if not is_blob_name(name):
            raise InvalidArgs(f"{name!r} is not a name for a blob: letters, digits, -._~ only.")
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidArgs(f"Blob {name!r} is not a regular file.")
        total += found.st_size
    if total > BLOBS_LIMIT:
        raise InvalidArgs(f"The blobs have {total} bytes; at most {BLOBS_LIMIT} are allowed.")


def is_blob_name(name: str) -> bool:
    """Whether a blob may be called so."""
    return 0 < len(name) <= 255 and not name.startswith(".") and set(name) <= _ALLOWED


def digest_of(fd: int) -> str:
    """SHA-256 of an open file from its beginning, in hexadecimal."""
    total = hashlib.sha256()
    for chunk in _chunks(fd):
        total.update(chunk)
    return total.hexdigest()


def _chunks(fd: int) -> Iterator[bytes]:
    # By position: the descriptor is borrowed, its offset not ours to move.
    position = 0
    while chunk := os.pread(fd, _CHUNK, position):
        yield chunk
        position += len(chunk)


def _copy(source: int, target: int, limit: int) -> int:
    written = 0
    for chunk in _chunks(source):
        written += len(chunk)
        if written > limit:
            raise InvalidArgs(f"The blobs have more than {BLOBS_LIMIT} bytes.")
        write_all(target, chunk)
    return written


def _read_blob(directory: Fd, name: str, owner: int, limit: int) -> Fd | None:
    if not is_blob_name(name):
        return None
    copy = Fd(os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        with open_guarded(directory, name, owner) as source:
            _copy(source.fileno(), copy.fileno(), limit)
    except (FileNotFoundError, HostileHome, InvalidArgs):
        copy.close()
        return None
    except OSError:
        copy.close()
        raise
    fcntl.fcntl(copy.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    return copy


def _write_blob(directory: int, name: str, source: int, limit: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    with Fd.open(name, flags, 0o600, dir_fd=directory) as new:
        written = _copy(source, new.fileno(), limit)
        os.fchmod(new.fileno(), 0o644)
        os.fsync(new.fileno())
    return written


def _swap(home: int, *, is_empty: bool) -> None:
    """Have what is beside in the place of what there is, and that beside."""
    if is_empty:
        with suppress(FileNotFoundError):
            os.rename(BLOBS, _BLOBS_NEW, src_dir_fd=home, dst_dir_fd=home)
        return
    with suppress(FileExistsError):
        # Even if there are none, what was there is known from beside.
        os.mkdir(BLOBS, 0o700, dir_fd=home)
    # Swapped rather than replaced: at no moment are there no blobs.
    renameat2(home, _BLOBS_NEW, home, BLOBS, RENAME_EXCHANGE)


def _discard(home: Fd, name: str) -> None:
    """Remove ``name``, whatever its owner has made of it."""
    # Unlinking a symbolic link removes the link; only a real directory is descended into.
    try:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=home.fileno())
    except IsADirectoryError:
        delete_tree(home, name)
