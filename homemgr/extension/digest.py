"""Whether an image is the one that was meant: stored digests, checked before it is mounted.

A digest is stored beside the image (as sha256sum(1) writes it) or in the ledger that
`homemgr extension trust` keeps. What was computed is kept until the machine restarts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import ExtensionDamaged, ExtensionNotTrusted
from homemgr.extension.trusted import open_trusted
from homemgr.files import Fd, read_bounded, read_limited, write_atomically
from homemgr.kernel.verity import measure

if TYPE_CHECKING:
    from collections.abc import Callable

_SUFFIX = ".sha256"
_SIDECAR_LIMIT = 64 << 10
_LEDGER_LIMIT = 4 << 20
_LEDGER_VERSION = 1

_HEX = re.compile(r"[0-9a-f]{64}")
#: A line of sha256sum: digest, space, space or asterisk, name; or the digest alone.
_LINE = re.compile(r"([0-9A-Fa-f]{64})(?: [ *](.+))?")

_PIECE = 1 << 20

#: Time stamps of files may be as coarse as a tick of the slowest clock: a change within
#: one tick of the last may not show.
_TICK_NS = 20_000_000


class Places(NamedTuple):
    """Where digests are kept: the administrator's ledger, and what was computed since boot."""

    ledger: str = "/var/lib/homemgr/extensions.digests.json"
    cache: str = "/run/homemgr/extension-digests"


PLACES = Places()


class Expected(NamedTuple):
    """What an image must be; ``source`` says where that is written."""

    sha256: str
    fs_verity: str
    source: str


def expected(path: str, places: Places = PLACES) -> Expected:
    """As `stored`; ExtensionNotTrusted if nothing is."""
    found = stored(path, places)
    if found is None:
        raise unknown(path)
    return found


def stored(path: str, places: Places = PLACES) -> Expected | None:
    """The digest of the image at ``path``; the ledger's word counts before its maker's."""
    entry = _ledger(places.ledger).get(path)
    if entry is not None:
        return Expected(entry.get("sha256", ""), entry.get("fsVerity", ""), places.ledger)
    try:
        with open_trusted(path + _SUFFIX) as file:
            text = read_limited(file.fileno(), _SIDECAR_LIMIT, path + _SUFFIX)
    except FileNotFoundError:
        return None
    found = from_sidecar(text.decode("utf-8", "replace"), os.path.basename(path))
    if not found:
        raise ExtensionNotTrusted(f"{path}{_SUFFIX} holds no SHA-256 digest of {path}.")
    return Expected(found, "", path + _SUFFIX)


def unknown(path: str) -> ExtensionNotTrusted:
    """Why an image is refused that nobody vouches for."""
    return ExtensionNotTrusted(
        f"No digest is stored for {path}: expected {path}{_SUFFIX}, or an entry made by"
        " `homemgr extension trust`."
    )


def from_sidecar(text: str, name: str) -> str:
    """The digest of file ``name`` in what sha256sum(1) wrote; empty if there is none."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match and os.path.basename(match[2] or name) == name:
            return match[1].lower()
    return ""


def verify(image: Fd, path: str, wanted: Expected, places: Places = PLACES) -> None:
    """`ExtensionDamaged` unless the open ``image`` is what it must be."""
    if wanted.fs_verity and measure(image.fileno()) == wanted.fs_verity:
        # From now on the kernel checks every page that is read.
        return
    found = _cached(image, places.cache) or _computed(image, path, places.cache)
    if found != wanted.sha256:
        raise ExtensionDamaged(
            f"{path} is not what {wanted.source} says: its SHA-256 digest is {found}, expected"
            f" {wanted.sha256 or 'fs-verity ' + wanted.fs_verity}."
        )


def trust(path: str, places: Places = PLACES) -> str:
    """Write the digest of the image at ``path`` as it is now into the ledger; returns it."""
    with open_trusted(path) as image:
        digest, fs_verity = _computed(image, path, places.cache), measure(image.fileno())
    entry = {"sha256": digest} | ({"fsVerity": fs_verity} if fs_verity else {})
    _change(places.ledger, lambda images: images.update({path: entry}))
    return digest


def distrust(path: str, places: Places = PLACES) -> None:
    """Take the entry of the image at ``path`` out of the ledger, if there is one."""
    _change(places.ledger, lambda images: images.pop(path, None))


def _change(ledger: str, change: Callable[[dict[str, dict[str, str]]], object]) -> None:
    images = _ledger(ledger)
    change(images)
    text = json.dumps({"version": _LEDGER_VERSION, "images": images}, indent=2, sort_keys=True)
    directory, name = os.path.split(ledger)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open_trusted(directory) as parent:
        write_atomically(parent, name, text.encode() + b"\n", 0o644)


def _ledger(path: str) -> dict[str, dict[str, str]]:
    try:
        with open_trusted(path) as file:
            raw = read_limited(file.fileno(), _LEDGER_LIMIT, path)
        document = json.loads(raw)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ExtensionNotTrusted(f"{path} cannot be read: {error}.") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, dict) or document.get("version") != _LEDGER_VERSION:
        raise ExtensionNotTrusted(f"{path} is not a list of digests of version {_LEDGER_VERSION}.")
    for image, entry in images.items():
        if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
            raise ExtensionNotTrusted(f"{path} has no digest for {image}, but something else.")
    return images


def _identity(image: Fd) -> tuple[str, str]:
    """Under which name a computed digest is kept, and of which state of the file it is."""
    found = os.fstat(image.fileno())
    state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{found.st_dev:x}-{found.st_ino:x}", state


def _cached(image: Fd, cache: str) -> str:
    name, state = _identity(image)
    with suppress(OSError, ExtensionNotTrusted), open_trusted(cache) as directory:
        kept, _, digest = read_bounded(directory, name, 256).decode("ascii").rpartition(" ")
        if kept == state and _HEX.fullmatch(digest):
            return digest
    return ""


def _computed(image: Fd, path: str, cache: str) -> str:
    before = _identity(image)
    is_settled = time.time_ns() - os.fstat(image.fileno()).st_ctime_ns > _TICK_NS
    digest = _sha256(image)
    if _identity(image) != before:
        raise ExtensionDamaged(f"{path} was changed while it was being read.")
    if is_settled:
        # Only saves time: a full disk must not stand in the way.
        with suppress(OSError, ExtensionNotTrusted):
            os.makedirs(cache, mode=0o700, exist_ok=True)
            with open_trusted(cache) as directory:
                write_atomically(directory, before[0], f"{before[1]} {digest}".encode(), 0o600)
    return digest


def _sha256(image: Fd) -> str:
    digest, piece, offset = hashlib.sha256(), bytearray(_PIECE), 0
    while count := os.preadv(image.fileno(), [piece], offset):
        digest.update(memoryview(piece)[:count])
        offset += count
    return digest.hexdigest()
