"""The signing keys on disk: the machine's own pair and the public keys it accepts.

Loads them with the rules of systemd-homed (root-owned, nobody else may write;
the private key readable by root alone) and makes the own pair on first need.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from homemgr import files
from homemgr.record import signature

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

LOCAL_PRIVATE = "local.private"
LOCAL_PUBLIC = "local.public"
_SUFFIX = ".public"
_MAX_KEY_BYTES = 64 * 1024


def load(directories: Sequence[str], state_directory: str) -> signature.Keyring:
    """All keys of ``directories``; a pair is made in ``state_directory`` if there is none.

    A private key that exists but is not to be trusted is never replaced: homes
    signed with it would be lost to their users. Then the keyring has none.
    """
    found, seen = _read_all(directories)
    if LOCAL_PRIVATE not in seen:
        private, public = signature.generate_key_pair()
        _store_pair(state_directory, private, public)
        found[LOCAL_PRIVATE], found[LOCAL_PUBLIC] = private, public
    return signature.Keyring.from_pem(private=found.pop(LOCAL_PRIVATE, None), public=found)


def _read_all(directories: Sequence[str]) -> tuple[dict[str, bytes], set[str]]:
    """Contents by file name, and all names seen: a file that is refused masks later ones too."""
    seen: set[str] = set()
    found: dict[str, bytes] = {}
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for name in names:
            if name in seen or not (name.endswith(_SUFFIX) or name == LOCAL_PRIVATE):
                continue
            seen.add(name)
            if (content := _read_key(directory, name)) is not None:
                found[name] = content
    return found, seen


def _read_key(directory: str, name: str) -> bytes | None:
    """The key file, or None (logged) if somebody other than root could have written or read it."""
    path = os.path.join(directory, name)
    try:
        status = os.stat(path)
        forbidden = 0o077 if name == LOCAL_PRIVATE else 0o022
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & forbidden:
            log.error(
                "Ignoring key %s: owner %d, mode %04o; expected owner 0 and none of %04o.",
                path,
                status.st_uid,
                stat.S_IMODE(status.st_mode),
                forbidden,
            )
            return None
        return files.read_bounded(directory, name, _MAX_KEY_BYTES)
    except OSError as error:
        log.error("Ignoring key %s: %s", path, error.strerror)
        return None


def _store_pair(directory: str, private: bytes, public: bytes) -> None:
    """Private first: a public key alone would look like somebody else's."""
    os.makedirs(directory, 0o755, exist_ok=True)
    files.write_atomically(directory, LOCAL_PRIVATE, private, 0o400)
    files.write_atomically(directory, LOCAL_PUBLIC, public, 0o444)
    log.info("Made a new key pair to sign user records with in %s.", directory)
