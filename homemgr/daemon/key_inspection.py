"""The machine's signing keys as files, looked at against those that the service has loaded."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.record.findings import CODES, Finding
from homemgr.record.signature import (
    LOCAL_KEY,
    LOCAL_PRIVATE,
    PRIVATE_SUFFIX,
    PUBLIC_SUFFIX,
    PrivateKey,
    PublicKey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.daemon.config import Config
    from homemgr.record.signature import Keyring

_MAX_KEY_BYTES = 64 * 1024


def look(config: Config, keyring: Keyring) -> list[Finding]:
    """What is wrong with them. Blocks."""
    return list(_findings(config, keyring))


def mend(config: Config, keyring: Keyring) -> list[Finding]:
    """The same, mended where the service can. Blocks."""
    return [_mended(one, keyring) if one.can_repair else one for one in look(config, keyring)]


def _findings(config: Config, keyring: Keyring) -> Iterator[Finding]:
    seen: set[str] = set()
    for directory in config.key_directories:
        for name in _names(directory):
            if name in seen:
                continue
            seen.add(name)
            yield from _judge(os.path.join(directory, name), name, keyring)
    for name in (LOCAL_PRIVATE, LOCAL_KEY):
        if name not in seen:
            path = os.path.join(config.record_directory, name)
            yield Finding("key-missing", path, can_repair=_content(name, keyring) is not None)


def _names(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    suffixes = (PUBLIC_SUFFIX, PRIVATE_SUFFIX)
    return sorted(n for n in names if n.endswith(suffixes) and not n.startswith("."))


def _judge(path: str, name: str, keyring: Keyring) -> Iterator[Finding]:
    directory, _ = os.path.split(path)
    try:
        # As the service reads it: through links, which are root's as their directory is.
        status = os.stat(path)
        content = files.read_bounded(directory, name, _MAX_KEY_BYTES)
        if mode := stat.S_IMODE(status.st_mode) & _forbidden(name) or status.st_uid != 0:
            detail = f"It belongs to {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}."
            yield Finding("key-mode", path, detail, bool(mode) and status.st_uid == 0)
        _require_key(name, content, keyring)
    except (OSError, errors.InvalidArgs) as error:
        reason = error.message if isinstance(error, errors.InvalidArgs) else str(error.strerror)
        yield Finding("key-unreadable", path, reason, _content(name, keyring) is not None)


def _require_key(name: str, content: bytes, keyring: Keyring) -> None:
    """Raise InvalidArgs unless this is a key; of the machine's own, the one that is in use."""
    if name.endswith(PUBLIC_SUFFIX):
        public = PublicKey.from_pem(content, name)
    else:
        public = PrivateKey.from_pem(content, name).public
    if name in (LOCAL_KEY, LOCAL_PRIVATE) and public != keyring.public.get(LOCAL_KEY, public):
        raise errors.InvalidArgs(f"{name} is another key than the one in use.")


def _forbidden(name: str) -> int:
    return 0o077 if name.endswith(PRIVATE_SUFFIX) else 0o022


def _content(name: str, keyring: Keyring) -> bytes | None:
    """What the file of a half of the machine's own key has to hold, if that is known."""
    private = keyring.private.get(LOCAL_PRIVATE)
    if private is None or name not in (LOCAL_KEY, LOCAL_PRIVATE):
        return None
    return private.to_pem() if name == LOCAL_PRIVATE else private.public.pem.encode()


def _mended(finding: Finding, keyring: Keyring) -> Finding:
    directory, name = os.path.split(finding.subject)
    try:
        if finding.code == "key-mode":
            mode = stat.S_IMODE(os.stat(finding.subject).st_mode)
            os.chmod(finding.subject, mode & ~_forbidden(name))
        else:
            content = _content(name, keyring)
            assert content is not None
            if finding.code == "key-unreadable":
                # Another suffix: it is looked at as a key no more.
                os.rename(finding.subject, f"{finding.subject}.kept-{os.urandom(4).hex()}")
            mode = 0o400 if name == LOCAL_PRIVATE else 0o444
            files.write_atomically(directory, name, content, mode)
    except OSError as error:
        return finding._replace(failed=errors.from_os_error(error, "Repair").message)
    return finding._replace(done=CODES[finding.code].repair)
