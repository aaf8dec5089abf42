"""Which extensions there are: the search path, masks, versioned directories.

Looks at names only; whether a path can be trusted and what is in it is judged when
it is opened. Versioned directories: the UAPI.12 ``.v/`` specification.
"""

from __future__ import annotations

import enum
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.extension import versions
from homemgr.extension.release import KNOWN_ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from homemgr.extension.release import Host

#: Earlier ones hide what later ones have under the same name.
SEARCH_PATH = tuple(f"{top}/homemgr/extensions" for top in ("/etc", "/run", "/var/lib", "/usr/lib"))

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,126}")
_VERSION = re.compile(r"[A-Za-z0-9.~^_+-]{1,126}")

#: A symbolic link to this device takes an extension away.
_NULL = os.makedev(1, 3)


class Kind(enum.StrEnum):
    """How an extension is stored; the value is what its file name ends with."""

    DIRECTORY = ""
    IMAGE = ".raw"
    COMPOSEFS = ".composefs"


class Candidate(NamedTuple):
    """One stored form of an extension; ``version`` and ``architecture`` are from its file name."""

    name: str
    kind: Kind
    path: str
    version: str = ""
    architecture: str = ""


class Found(NamedTuple):
    """An extension that can be tried: all its versions for this machine, newest first."""

    name: str
    choices: tuple[Candidate, ...]

    @property
    def candidate(self) -> Candidate:
        """The newest."""
        return self.choices[0]


class Refused(NamedTuple):
    """An extension that cannot be used, and why: a whole sentence."""

    name: str
    reason: str


def candidates(directories: Iterable[str] = SEARCH_PATH) -> list[Candidate]:
    """All forms of all extensions in the first directory that has them; masked ones absent."""
    found: list[Candidate] = []
    hidden: set[str] = set()
    for directory in directories:
        here: list[Candidate] = []
        masked: set[str] = set()
        for entry in _entries(directory):
            if _is_mask(entry):
                masked.add(_masked_name(entry.name))
            else:
                here += _forms(entry)
        found += [c for c in here if c.name not in hidden | masked]
        hidden |= masked | {c.name for c in here}
    return found


def pick(found: Sequence[Candidate], host: Host) -> list[Found | Refused]:
    """For each extension its versions for this machine, newest first, ordered by name."""
    by_name: dict[str, list[Candidate]] = {}
    for candidate in found:
        by_name.setdefault(candidate.name, []).append(candidate)
    return [_pick(name, by_name[name], host) for name in sorted(by_name, key=versions.sort_key)]


def _pick(name: str, forms: list[Candidate], host: Host) -> Found | Refused:
    ways = sorted({c.path if not c.version else os.path.dirname(c.path) for c in forms})
    if len(ways) > 1:
        return Refused(name, f"Extension {name} is there more than once: {', '.join(ways)}.")
    fitting = [c for c in forms if c.architecture in ("", host.architecture)]
    if not fitting:
        return Refused(name, f"No version of extension {name} is for {host.architecture}.")
    # A version for this very architecture before one that does not say.
    fitting.sort(key=lambda c: (versions.sort_key(c.version), c.architecture), reverse=True)
    return Found(name, tuple(fitting))


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    # What cannot be listed offers nothing, and must not stand in the way of the others.
    with suppress(OSError), os.scandir(directory) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _is_mask(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return False
    # A link that leads nowhere masks nothing.
    with suppress(OSError):
        seen = entry.stat()
        return stat.S_ISCHR(seen.st_mode) and seen.st_rdev == _NULL
    return False


def _masked_name(entry: str) -> str:
    return _split(entry.removesuffix(".v"))[0]


def _split(entry: str) -> tuple[str, Kind]:
    for kind in (Kind.IMAGE, Kind.COMPOSEFS):
        if entry.endswith(kind.value):
            return entry.removesuffix(kind.value), kind
    return entry, Kind.DIRECTORY


def _forms(entry: os.DirEntry[str]) -> Iterator[Candidate]:
    is_versioned = entry.name.endswith(".v")
    name, kind = _split(entry.name.removesuffix(".v"))
    if not _NAME.fullmatch(name):
        return
    if not is_versioned:
        if _is_stored_as(entry, kind):
            yield Candidate(name, kind, entry.path)
        return
    for version in _entries(entry.path):
        if _is_stored_as(version, kind) and version.name.endswith(kind.value):
            rest = version.name.removesuffix(kind.value)
            if rest.startswith(f"{name}_"):
                yield from _version(name, kind, version.path, rest.removeprefix(f"{name}_"))


def _version(name: str, kind: Kind, path: str, rest: str) -> Iterator[Candidate]:
    version, _, architecture = rest.rpartition("_")
    if not version or architecture not in KNOWN_ARCHITECTURES:
        version, architecture = rest, ""
    if _VERSION.fullmatch(version):
        yield Candidate(name, kind, path, version, architecture)


def _is_stored_as(entry: os.DirEntry[str], kind: Kind) -> bool:
    # Links are followed: whether they may be is decided when it is opened.
    with suppress(OSError):
        return entry.is_file() if kind is Kind.IMAGE else entry.is_dir()
    return False
