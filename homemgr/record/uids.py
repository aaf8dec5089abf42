"""Which uids a home may have, and in which order they are tried for a name.

Pure numbers: whether one is taken is the caller's look-up. The order begins as
systemd-homed chooses, so that a user gets the same uid under both on any machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import UIDNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The key of homed's uid hash, fixed for all machines.
_HASH_KEY: Final = bytes.fromhex("a3b882699a71f7a9e07cf6f12169d21e")
_MASK: Final = (1 << 64) - 1
_HIGHEST_UID: Final = 0xFFFFFFFE


class UidRange(NamedTuple):
    """A range of uids, both ends included."""

    first: int
    last: int

    def __contains__(self, uid: object) -> bool:
        """Whether the uid lies in the range."""
        return isinstance(uid, int) and self.first <= uid <= self.last

    @property
    def size(self) -> int:
        """How many uids there are."""
        return max(0, self.last - self.first + 1)


#: What homed gives out.
DEFAULT_RANGE: Final = UidRange(60001, 60513)

# Ranges other owners have a claim on, with the words for a refusal.
_FORBIDDEN: Final = (
    (UidRange(0, 999), "system users"),
    (UidRange(60578, 60705), "greeters"),
    (UidRange(61184, 65519), "dynamic service users"),
    (UidRange(65534, 65534), "nobody, who owns the stored files of all homes"),
    (UidRange(65535, 65535), "no user at all, in 16 bits"),
)


def check_allowed(uid: int) -> None:
    """Refuse a uid that a home must not have; raises UIDNotAllowed."""
    if not 0 <= uid <= _HIGHEST_UID:
        raise UIDNotAllowed(f"Uid {uid} is not allowed: expected 1000..{_HIGHEST_UID}.")
    for forbidden, owner in _FORBIDDEN:
        if uid in forbidden:
            raise UIDNotAllowed(f"Uid {uid} is not allowed: it is reserved for {owner}.")


def is_allowed(uid: int) -> bool:
    """Whether :func:`check_allowed` accepts the uid."""
    return 0 <= uid <= _HIGHEST_UID and not any(uid in forbidden for forbidden, _ in _FORBIDDEN)


def candidates(
    name: str, uid_range: UidRange = DEFAULT_RANGE, owner_hint: int | None = None
) -> Iterator[int]:
    """Every usable uid of the range once: the image's owner, the name's hash, then the rest.

    The rest comes in an order that depends on the name, so that two machines, or two
    names whose hashes meet, do not walk through the same neighbours.
    """
    if owner_hint is not None and owner_hint in uid_range and is_allowed(owner_hint):
        yield owner_hint
    # From here on without state and without chance: asking again gives the same answer.
    size = uid_range.size
    if not size:
        return
    hashed = siphash24(name.encode(), _HASH_KEY)
    start, step = (hashed & 0xFFFFFFFF) % size, _coprime(hashed >> 32, size)
    for count in range(size):
        uid = uid_range.first + (start + count * step) % size
        if uid != owner_hint and is_allowed(uid):
            yield uid


def _coprime(wanted: int, size: int) -> int:
    """A step that reaches every one of ``size`` places before it repeats."""
    step = wanted % size or 1
    while math.gcd(step, size) != 1:
        step += 1
    return step


# --- SipHash-2-4, Aumasson and Bernstein 2012 -------------------------------------


def siphash24(data: bytes, key: bytes) -> int:
    """SipHash with two compression and four finalisation rounds, as 64-bit number."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    # The four constants spell "somepseudorandomlygeneratedbytes".
    state = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    whole = len(data) - len(data) % 8
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3 ^ word)
        state = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = _rounds(4, state[0], state[1], state[2] ^ 0xFF, state[3])
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(count: int, v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & _MASK
        v1 = _rotate(v1, 13) ^ v0
        v0 = _rotate(v0, 32)
        v2 = (v2 + v3) & _MASK
        v3 = _rotate(v3, 16) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = _rotate(v3, 21) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = _rotate(v1, 17) ^ v2
        v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK
