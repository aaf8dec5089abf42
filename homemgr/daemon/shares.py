"""How free space is shared out among homes by their weights: arithmetic alone. Pure.

As systemd-homed 262 has it: what is free on the disk and inside the homes is one sum, of which
each home gets a part as large as its weight, and the disk one as well. Other than there no
home gets less than its file system needs; what it has above its part then, all others miss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The weight of what stays free beside the homes; a home has 100 if nobody says otherwise.
BACKING_WEIGHT: Final = 20
#: Sizes are in whole blocks, and no larger than that.
_BLOCK: Final = 4096
_MOST: Final = 5 << 40
#: Nothing is done for less than one part in so many of the size of any home.
_WORTHWHILE: Final = 20
#: Minutes between two times at least and at most, and of how many steps of 2 that is a scale;
#: it begins with 4 MiB.
_SHORTEST_MIN, _LONGEST_MIN = 1, 15
_STEPS, _FIRST_STEP = 26, 22


class Claim(NamedTuple):
    """One home of those that share a disk; sizes in bytes."""

    name: str
    weight: int
    #: What it has, and what of that is not free inside.
    size: int
    used: int
    #: What its file system needs.
    least: int
    #: What it takes of the disk: less than its size if nothing was reserved for it.
    held: int

    @property
    def floor(self) -> int:
        """The least size that may be chosen, in whole blocks."""
        return -(-max(self.used, self.least) // _BLOCK) * _BLOCK


def share_out(free: int, claims: Sequence[Claim]) -> dict[str, int]:
    """The size for each home, ``free`` bytes being free beside them.

    With these sizes full, all of them are on the disk at once. All stay as they are if the disk
    has not even what they need.
    """
    rest = free + sum(max(0, claim.held - claim.used) for claim in claims)
    parts, weights = list(claims), BACKING_WEIGHT + sum(claim.weight for claim in claims)
    sizes: dict[str, int] = {}
    while poor := [c for c in parts if c.weight * rest < (c.floor - c.used) * weights]:
        # What those get beyond their parts is less for everybody: look at all others again.
        for claim in poor:
            parts.remove(claim)
            sizes[claim.name] = claim.floor
            rest -= claim.floor - claim.used
            weights -= claim.weight
        if rest < 0:
            return {claim.name: claim.size for claim in claims}
    for claim in parts:
        size = claim.used + claim.weight * rest // weights
        sizes[claim.name] = min(_MOST, size // _BLOCK * _BLOCK)
    return sizes


def are_worthwhile(sizes: Mapping[str, int], claims: Sequence[Claim]) -> bool:
    """Whether any home changes by so much that all of them are seen to."""
    return any(abs(sizes[c.name] - c.size) * _WORTHWHILE >= c.size for c in claims)


def pause_s(least_free: int) -> float:
    """Seconds until it is done again, where the home with the least room has that much."""
    steps = max(0.0, math.log2(max(1, least_free)) - _FIRST_STEP)
    minutes = steps * _LONGEST_MIN / _STEPS
    return 60.0 * min(_LONGEST_MIN, max(_SHORTEST_MIN, minutes))
