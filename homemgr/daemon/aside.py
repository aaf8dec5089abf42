"""Damaged user records, kept beside the good ones until somebody has looked at them.

In the record directory, which is root's alone, under names that neither this service nor
systemd-homed takes for a user's: ``USER.identity.KIND-DIGEST``. What was kept before is not
kept twice; of each user only the latest few are, as he makes as many as he likes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from homemgr import files
from homemgr.record import jsontext

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

#: Kinds: the host copy, and the copy inside the home.
HOST, INSIDE = "unaccepted", "damaged-inside"
#: Of one user at once; each has at most 1 MiB, as what is larger is not read as a record.
MAX_KEPT = 8

_NAME: Final = re.compile(rf"(?P<user>.+)\.identity\.(?:{HOST}|{INSIDE})-[0-9a-f]{{16}}", re.DOTALL)


def keep_text(directory: str, user: str, kind: str, text: bytes) -> str:
    """Keep ``text`` for ``user``; gives the file's path once it is on the disk. Raises OSError."""
    name = f"{user}.identity.{kind}-{hashlib.sha256(text).hexdigest()[:16]}"
    path = os.path.join(directory, name)
    if os.path.lexists(path):
        # It is the latest again.
        os.utime(path, follow_symlinks=False)
    else:
        files.write_atomically(directory, name, text, 0o600)
    _drop_oldest(directory, user)
    return path


def keep_file(directory: str, user: str, file_name: str) -> str | None:
    """Rename the host copy ``file_name``, whatever it is; gives its new path, None if none is."""
    name = f"{user}.identity.{HOST}-{_digest_of(directory, file_name)}"
    path = os.path.join(directory, name)
    try:
        os.rename(os.path.join(directory, file_name), path)
    except FileNotFoundError:
        return None
    with files.opened(directory) as parent:
        os.fsync(parent)
    _drop_oldest(directory, user)
    return path


def kept(directory: str, user: str) -> list[str]:
    """The names of all that is kept of ``user``, the latest first."""
    found = []
    for name in _names(directory):
        named = _NAME.fullmatch(name)
        if named is not None and named["user"] == user:
            with suppress(FileNotFoundError):
                found.append((os.lstat(os.path.join(directory, name)).st_mtime_ns, name))
    return [name for _, name in sorted(found, reverse=True)]


def forget(directory: str, user: str) -> None:
    """Delete all that is kept of ``user``, who is being removed: it holds hashes of passwords."""
    for name in kept(directory, user):
        _unlink(directory, name)


def _drop_oldest(directory: str, user: str) -> None:
    for name in kept(directory, user)[MAX_KEPT:]:
        log.info("Deleting %s/%s: later ones are kept.", directory, name)
        _unlink(directory, name)


def _unlink(directory: str, name: str) -> None:
    try:
        os.unlink(os.path.join(directory, name))
    except OSError as error:
        log.warning("%s/%s stays: %s", directory, name, error.strerror)


def _digest_of(directory: str, file_name: str) -> str:
    """Of the content; of what cannot be read as a file something that nothing else has."""
    try:
        text = files.read_bounded(directory, file_name, jsontext.MAX_RECORD_BYTES)
    except OSError:
        return os.urandom(8).hex()
    return hashlib.sha256(text).hexdigest()[:16]


def _names(directory: str) -> Iterator[str]:
    with suppress(FileNotFoundError):
        yield from os.listdir(directory)
