"""Key slots of fscrypt that are made in no time: few tests are about how long a guess takes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.storage import key_slots

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Rounds of slots that are written, and what they are outside of tests.
FEW, USUAL = 1000, key_slots.ITERATIONS


def make_short() -> None:
    """From here on in this process, and in those it forks."""
    key_slots.ITERATIONS = FEW


@contextmanager
def short() -> Iterator[None]:
    """Until the end of the block."""
    make_short()
    try:
        yield
    finally:
        key_slots.ITERATIONS = USUAL
