"""Damages input the way files, networks and attackers do; every choice comes from one generator."""

from __future__ import annotations

import copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random

#: Numbers and texts at the edges of what parsers think about.
NUMBERS = (
    0,
    1,
    -1,
    255,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
)
TEXTS = (
    *("", "\0", "/", "..", "../../etc/passwd", "%s%n", "'\"", "a" * 4096, "\u202e", "\ud7ff"),
    *("root", "nobody", "-x", "{}", "[]", "\x7f", "é", "$6$x$y", "/home", "@", "x@y", "x%y"),
)
VALUES: tuple[object, ...] = (None, True, False, {}, [], [[]], {"": {}}, 1.5, *NUMBERS, *TEXTS)


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """A few flips, cuts, repeats or insertions."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made)) if made else 0
        kind = rng.randrange(6)
        if kind == 0 and made:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[at] = rng.randrange(256)
        elif kind == 2:
            del made[at : at + rng.randint(1, 16)]
        elif kind == 3:
            made[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind == 4:
            made[at:at] = made[at : at + rng.randint(1, 64)]
        else:
            # Lengths are four bytes, mostly at multiples of four.
            made[at & ~3 : (at & ~3) + 4] = rng.choice(NUMBERS).to_bytes(16, "little", signed=True)[
                :4
            ]
    return bytes(made)


def damaged_json(rng: Random, value: object) -> object:
    """A few members changed, lost, renamed, repeated or moved."""
    made = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        made = _damage_once(rng, made)
    return made


def _damage_once(rng: Random, value: object) -> object:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(5)
        if kind == 0:
            del value[key]
        elif kind == 1:
            value[rng.choice(TEXTS)] = value.pop(key)
        elif kind == 2:
            value[key] = _any_value(rng)
        else:
            value[key] = _damage_once(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.3:
            value += [value[at]] * rng.choice((1, 2, 100))
        else:
            value[at] = _damage_once(rng, value[at])
        return value
    return _any_value(rng)


def _any_value(rng: Random) -> object:
    if rng.random() < 0.02:
        nested: object = []
        for _ in range(rng.choice((10, 100, 250))):
            nested = [nested]
        return nested
    return copy.deepcopy(rng.choice(VALUES))
