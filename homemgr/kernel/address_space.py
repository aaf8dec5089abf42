"""How much address space this process may take: RLIMIT_AS of setrlimit(2), which children inherit.

Only the soft limit is ever set: it guards against what data make us allocate, not against us.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of the machine's memory, what one piece of work may take on somebody else's word.
_SHARE = 4


def limit(size: int) -> None:
    """Take ``size`` bytes at most from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    _set(size, hard)


@contextmanager
def raised(by: int | None = None) -> Iterator[None]:
    """Let this process, and children it starts, take ``by`` bytes more; if None all there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    _set(hard if by is None or soft == resource.RLIM_INFINITY else soft + by, hard)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def most_at_once() -> int:
    """Bytes that nothing which comes from a home may have us take at once."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE


def _set(size: int, hard: int) -> None:
    # setrlimit(2) refuses a soft limit above the hard one.
    if hard != resource.RLIM_INFINITY and (size == resource.RLIM_INFINITY or size > hard):
        size = hard
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
