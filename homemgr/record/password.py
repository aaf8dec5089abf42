"""Credentials against a record: does one unlock it, are all there, may they change.

Pure: hashing is handed in as ``verify(plaintext, hash)``, the time as a number, and
so is who asks security tokens. Follows homed's order of tests and its priority of errors.
"""

from __future__ import annotations

import itertools
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import (
    AccessDenied,
    BadPassword,
    BadPasswordAndNoToken,
    BadRecoveryKey,
    HomeCantAuthenticate,
    HomeError,
)
from homemgr.record.secret import normalise_recovery_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.secret import Secret


def check(
    effective: EffectiveRecord,
    secret: Secret,
    verify: Callable[[str, str], bool],
    ask_tokens: Callable[[EffectiveRecord], HomeError | None] | None = None,
) -> None:
    """Return if the secret unlocks the record; else raise what is missing most.

    ``ask_tokens`` gives None if a security token of the record unlocks it, or why none does.
    """
    if any(verify(word, hashed) for word, hashed in pairs(effective, secret)):
        return
    who = effective.user_and_realm
    if effective.token_hashes and ask_tokens is not None:
        failure = ask_tokens(effective)
        if failure is None:
            return
        if not isinstance(failure, BadPasswordAndNoToken):
            raise failure
    if effective.token_hashes:
        raise BadPasswordAndNoToken(
            f"No password given unlocks the home of {who}, and no security token of it is there."
        )
    if effective.hashed_passwords:
        raise BadPassword(f"No password given unlocks the home of {who}.")
    if effective.recovery_key_hashes:
        raise BadRecoveryKey(f"No recovery key given unlocks the home of {who}.")
    raise HomeCantAuthenticate(f"The record of {who} has no password to compare with.")


def pairs(effective: EffectiveRecord, secret: Secret) -> Iterator[tuple[str, str]]:
    """Each word with each hash that it may be behind, in the order in which `check` asks."""
    yield from itertools.product(secret.passwords, effective.hashed_passwords)
    yield from itertools.product(_recovery_keys(secret), effective.recovery_key_hashes)


def fitting(
    effective: EffectiveRecord, secret: Secret, verify: Callable[[str, str], bool]
) -> tuple[str, ...]:
    """The words of a secret that unlock the record, of all that somebody has tried."""
    return tuple(dict.fromkeys(w for w, hashed in pairs(effective, secret) if verify(w, hashed)))


def require_all(
    effective: EffectiveRecord, secret: Secret, verify: Callable[[str, str], bool]
) -> tuple[str, ...]:
    """The plaintext of every hash, in the order of key slots, each of which gets one of its own.

    As the slots know them: recovery keys in one spelling. Raises what is missing most.
    """
    who = effective.user_and_realm
    hashes, recovery = effective.hashed_passwords, effective.recovery_key_hashes
    if not (hashes or recovery or effective.token_hashes):
        raise HomeCantAuthenticate(f"The record of {who} has no password to compare with.")
    tokens = _match_all(secret.passwords, effective.token_hashes, verify)
    if tokens is None:
        raise BadPasswordAndNoToken(f"A security token of {who} is not there.")
    words = _match_all(secret.passwords, hashes, verify)
    if words is None:
        raise BadPassword(f"Not every password of {who} was given.")
    keys = _match_all(_recovery_keys(secret), recovery, verify)
    if keys is None:
        raise BadRecoveryKey(f"Not every recovery key of {who} was given.")
    return tuple(dict.fromkeys((*words, *keys, *tokens)))


def digest_of_hashes(effective: EffectiveRecord) -> str:
    """A digest (hex) of all that says which words unlock the home."""
    hashes = effective.hashed_passwords, effective.recovery_key_hashes, effective.token_hashes
    return sha256("\0".join(itertools.chain(*hashes)).encode()).hexdigest()


class Exchange(NamedTuple):
    """What a change of hashes means for key slots: words that get one, and words that lose it."""

    fresh: tuple[str, ...]
    dropped: tuple[str, ...]


def exchange(
    before: EffectiveRecord,
    after: EffectiveRecord,
    secret: Secret,
    verify: Callable[[str, str], bool],
) -> Exchange | None:
    """How slots go with a change of the record, if all that goes and comes is in the secret.

    What stays need not be at hand then. None if it is not so, or if nothing goes or comes:
    all slots have to be made anew.
    """
    known, wanted = _all_hashes(before), _all_hashes(after)
    words = tuple(dict.fromkeys((*secret.passwords, *_recovery_keys(secret))))
    dropped = _match_all(words, [h for h in known if h not in wanted], verify)
    fresh = _match_all(words, [h for h in wanted if h not in known], verify)
    if dropped is None or fresh is None or not (dropped or fresh):
        return None
    # A word that was there twice keeps a slot.
    kept = [h for h in wanted if h in known]
    again = [word for word in dropped if _matches_any([word], kept, verify)]
    return Exchange(tuple(dict.fromkeys((*fresh, *again))), tuple(dict.fromkeys(dropped)))


def may_change(effective: EffectiveRecord, now_usec: int) -> None:
    """Return if the ageing settings allow a password change now; else raise AccessDenied."""
    last = effective.last_password_change_usec
    if effective.password_change_now or last is None or last > now_usec:
        # Asked for, or nothing to count from (a stamp of the future means a wrong clock).
        return
    age = now_usec - last
    minimum = effective.password_change_min_usec
    if minimum is not None and age < minimum:
        raise AccessDenied(
            f"The password of {effective.user_and_realm} was changed too recently: "
            f"the next change is possible in {duration(minimum - age)}."
        )
    maximum = effective.password_change_max_usec
    inactive = effective.password_change_inactive_usec
    if maximum is not None and inactive is not None and age >= maximum + inactive:
        raise AccessDenied(
            f"The password of {effective.user_and_realm} has expired for so long "
            "that only an administrator can give a new one."
        )


def duration(usec: int) -> str:
    """A time span in words, rounded up to whole units."""
    seconds = -(-usec // 1_000_000)
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{-(-seconds // size)} {unit}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _all_hashes(effective: EffectiveRecord) -> tuple[str, ...]:
    return (
        *effective.hashed_passwords,
        *effective.recovery_key_hashes,
        *effective.token_hashes,
    )


def _recovery_keys(secret: Secret) -> list[str]:
    # Normalised first: slots and hashes know one spelling only (homed's defect 6). What does
    # not look like a recovery key is not worth a slow hash.
    return [key for p in secret.passwords if (key := normalise_recovery_key(p)) is not None]


def _matches_any(
    plaintexts: Iterable[str], hashes: Iterable[str], verify: Callable[[str, str], bool]
) -> bool:
    known = tuple(hashes)
    return any(verify(plaintext, hashed) for plaintext in plaintexts for hashed in known)


def _match_all(
    plaintexts: Iterable[str], hashes: Iterable[str], verify: Callable[[str, str], bool]
) -> list[str] | None:
    """The plaintext of each hash; None if one is not there."""
    given = tuple(plaintexts)
    found = []
    for hashed in hashes:
        match = next((plaintext for plaintext in given if verify(plaintext, hashed)), None)
        if match is None:
            return None
        found.append(match)
    return found
