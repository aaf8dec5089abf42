"""Names: of users, realms, blob files, and the image file a name leads to.

Pure text rules. New names follow homed's strict rules, names that exist already
(records on disk, look-ups) the relaxed ones of the user database.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from homemgr.errors import InvalidArgs

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST_NEW_NAME: Final = 31
LONGEST_SLOT_NAME: Final = 32
#: ``NAME.identity`` has to fit into the 255 bytes of a file name.
LONGEST_NAME_BYTES: Final = 255 - len(".identity")
IMAGE_SUFFIX: Final = ".homedir"
#: Of what a home is that is a file, by its storage. systemd-homed takes every `.home` for `luks`.
FILE_SUFFIXES: Final = {"luks": ".home", "image": ".homeimage"}

_NEW_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{LONGEST_NEW_NAME - 1}}}\Z")
_NUMERIC = re.compile(r"-?[0-9]+\Z")
_IMPOSSIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f:/]|\A\s|\s\Z")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
_BLOB_NAME = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,254}\Z")
_SLOT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_SLOT_NAME - 1}}}\Z")
_RESERVED: Final = frozenset({"root", "nobody", "nogroup"})


def check_new_name(name: str, nobody_names: Collection[str] = ()) -> None:
    """Refuse what must not become a user; ``nobody_names`` are this machine's own for nobody."""
    if not _NEW_NAME.match(name):
        raise InvalidArgs(
            f"User name {name[:64]!r} is not allowed: expected an ASCII letter, then letters, "
            f"digits, '_' or '-', at most {LONGEST_NEW_NAME} characters."
        )
    if is_reserved(name, nobody_names):
        raise InvalidArgs(f"User name {name!r} is reserved for the system.")


def is_reserved(name: str, nobody_names: Collection[str] = ()) -> bool:
    """Whether a name belongs to the system on every machine."""
    return name in _RESERVED or name in nobody_names or name.startswith("systemd-")


def is_acceptable(name: str) -> bool:
    """Whether an existing user or group may have this name (the relaxed rules)."""
    if not name or _IMPOSSIBLE.search(name) or _NUMERIC.match(name) or name in (".", ".."):
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME_BYTES
    except UnicodeEncodeError:
        return False  # half a surrogate pair: no file can have this name


def is_realm(realm: str) -> bool:
    """Whether this is a DNS name in its plain spelling: no final dot, no escapes."""
    return len(realm) <= 253 and all(_LABEL.match(label) for label in realm.split("."))


def is_blob_name(name: str) -> bool:
    """Whether a file of the blob directory may have this name."""
    return bool(_BLOB_NAME.match(name))


def is_slot_name(name: str) -> bool:
    """Whether what unlocks a home may be called so."""
    return bool(_SLOT_NAME.match(name))


def split_realm(text: str) -> tuple[str, str | None]:
    """``user@realm`` in its parts; the realm is None if there is none."""
    user, at, realm = text.partition("@")
    return user, realm if at else None


def with_realm(name: str, realm: str | None) -> str:
    """``user@realm``, or the plain name without a realm."""
    return f"{name}@{realm}" if realm else name


def image_file_name(name: str, realm: str | None, storage: str | None = None) -> str:
    """What a home lies in, below the base directory of its machine: a directory, or a file."""
    suffix = FILE_SUFFIXES.get(storage or "", IMAGE_SUFFIX)
    return with_realm(name, realm) + suffix


def is_remote(image_path: str) -> bool:
    """Whether what is said to be the path of an image is a directory on a file server."""
    return image_path.startswith("//")


def is_device(image_path: str) -> bool:
    """Whether an image path names a device, whether or not it is plugged in."""
    return image_path.startswith("/dev/")


def stays(image_path: str) -> bool:
    """Whether what lies there is never renamed nor deleted: it is on a device or a file server."""
    return is_device(image_path) or is_remote(image_path)


def parse_image_file_name(file_name: str) -> tuple[str, str | None] | None:
    """User and realm of an image's name; None if it is no such name.

    The realm is parsed before the name is judged, or ``@`` would refuse it (homed's defect 11).
    """
    stem, dot, suffix = file_name.rpartition(".")
    if dot + suffix not in (IMAGE_SUFFIX, *FILE_SUFFIXES.values()):
        return None
    user, realm = split_realm(stem)
    if not is_acceptable(user) or (realm is not None and not is_realm(realm)):
        return None
    return user, realm
