"""No core dumps of a command line that was told a password. See core(5), setrlimit(2)."""

from __future__ import annotations

import resource
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: How large dumps might have been when we were started.
_AS_STARTED = resource.getrlimit(resource.RLIMIT_CORE)


def forbid() -> None:
    """From now on this process leaves none behind, whatever ends it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, _AS_STARTED[1]))


@contextmanager
def as_started() -> Iterator[None]:
    """Within the block programs are started that may dump: their memory is their own."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, _AS_STARTED)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
