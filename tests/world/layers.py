"""Makes all layers ahead of the tests, so that no test's time limit pays for downloads.

Run as `python -m tests.world.layers`.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from . import guest
from .product import BASES, layers_of, with_volumes


def make(base: str) -> str:
    """All layers on one base; says how long it took."""
    started = time.monotonic()
    for daemon in ("homed", "both", "homemgr"):
        layers_of(daemon, base).image()
    with_volumes(BASES[base]()).image()
    return f"{base}: {time.monotonic() - started:.1f} s"


def main() -> None:
    """All side by side: most of the time goes into waiting for packages."""
    with ThreadPoolExecutor() as builders:
        other_kernels = builders.submit(guest.kernels().image)
        for line in builders.map(make, BASES):
            print(line, file=sys.stderr)
        other_kernels.result()


if __name__ == "__main__":
    main()
