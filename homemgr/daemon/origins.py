"""The machines and signers that homes are accepted from: a list like ssh's known hosts.

One JSON file ``FINGERPRINT.json`` for each, root's alone: fingerprint (SHA-256 of the DER
public key, hex), public_key (PEM, empty if it was accepted by fingerprint before it was
seen), host, machine_id, when (microseconds since 1970), by_uid. Holds no opinion on what
else a key may do: signing keys of records are another list.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from homemgr import errors, files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.record.signature import PublicKey

log = logging.getLogger(__name__)

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".json"
_MAX_BYTES = 64 * 1024
#: Origins that were refused and can be accepted by fingerprint alone.
_MAX_SEEN = 64


@dataclass(frozen=True)
class Origin:
    """A machine, or whoever else holds the private half of a key."""

    fingerprint: str
    public_key: str
    host: str
    machine_id: str
    when: int = 0
    by_uid: int = 0


class Origins:
    """The accepted origins of one machine, kept in a directory."""

    def __init__(self, directory: str) -> None:
        """Know what is in ``directory`` once it is loaded."""
        self._directory = directory
        self._known: dict[str, Origin] = {}
        self._seen: dict[str, Origin] = {}
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Read the list; blocks. A file that is none of ours is logged and left alone."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        for entry in sorted(os.listdir(self._directory)):
            fingerprint = entry.removesuffix(_SUFFIX)
            if not _FINGERPRINT.fullmatch(fingerprint) or entry == fingerprint:
                continue
            try:
                told = json.loads(files.read_bounded(self._directory, entry, _MAX_BYTES))
                self._known[fingerprint] = _read(fingerprint, told)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                log.error("Ignoring origin %s: %s", entry, type(error).__name__)

    def listed(self) -> list[dict[str, object]]:
        """All accepted origins, as a client is shown them."""
        return [
            {k: v for k, v in asdict(origin).items() if k != "public_key"}
            for _, origin in sorted(self._known.items())
        ]

    def trusts(self, key: PublicKey) -> bool:
        """Whether the holder of this key was accepted."""
        return key.fingerprint in self._known

    async def trust(self, origin: Origin, *, now_usec: int, by_uid: int) -> None:
        """Accept homes of ``origin`` from now on; once more is no harm."""
        check_fingerprint(origin.fingerprint)
        seen = self._seen.pop(origin.fingerprint, None)
        known = self._known.get(origin.fingerprint)
        best = next((o for o in (origin, seen, known) if o and o.public_key), origin)
        accepted = Origin(**{**asdict(best), "when": now_usec, "by_uid": by_uid})
        # One at a time: disk and memory have to end with the same of two changes.
        async with self._lock:
            await asyncio.to_thread(self._write, accepted)
            self._known[accepted.fingerprint] = accepted
        log.info("Homes from %s are accepted, key %s.", accepted.host, accepted.fingerprint)

    async def forget(self, fingerprint: str) -> None:
        """Accept nothing of this origin any more; raises NoSuchKey."""
        check_fingerprint(fingerprint)
        async with self._lock:
            if fingerprint not in self._known:
                raise errors.NoSuchKey(f"No origin of fingerprint {fingerprint} is known.")
            await asyncio.to_thread(self._unlink, fingerprint)
            del self._known[fingerprint]

    def note_seen(self, origin: Origin) -> None:
        """Remember an origin that was refused, so that `trust` finds out what it is called."""
        while len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[origin.fingerprint] = origin

    def _write(self, origin: Origin) -> None:
        text = json.dumps(asdict(origin), ensure_ascii=False, indent=2).encode() + b"\n"
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            files.write_atomically(self._directory, origin.fingerprint + _SUFFIX, text, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, "Saving the accepted origin") from error

    def _unlink(self, fingerprint: str) -> None:
        try:
            os.unlink(os.path.join(self._directory, fingerprint + _SUFFIX))
            with files.opened(self._directory) as directory:
                os.fsync(directory)
        except OSError as error:
            raise errors.from_os_error(error, "Removing the accepted origin") from error


def check_fingerprint(fingerprint: str) -> str:
    """The fingerprint; raises InvalidArgs if it is none."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise errors.InvalidArgs(
            f"fingerprint: expected 64 hexadecimal digits, found {fingerprint[:80]!r}."
        )
    return fingerprint


def _read(fingerprint: str, told: dict[str, object]) -> Origin:
    when, by_uid = told.get("when"), told.get("by_uid")
    return Origin(
        fingerprint,
        str(told.get("public_key", "")),
        str(told.get("host", "")),
        str(told.get("machine_id", "")),
        when if isinstance(when, int) else 0,
        by_uid if isinstance(by_uid, int) else 0,
    )


def untrusted(origins: Iterable[Origin], user: str) -> errors.UntrustedOrigin:
    """The refusal that says whom to accept: the origin first, then the signer if another."""
    unique = list({o.fingerprint: o for o in origins}.values())
    prints = " and ".join(f"{o.fingerprint} ({o.host or 'nameless'})" for o in unique)
    return errors.UntrustedOrigin(
        f"The home of {user} comes from an origin that nobody accepted here yet: {prints}. "
        "If that is whom you expect, accept each with: homemgr origins trust FINGERPRINT"
    )
