"""Whether udev has a part in making devices of device-mapper: it runs, and has the rules for it.

The libraries that make such devices wait until udev has seen them, for ever if need be: it says so
by a rule that ends their wait, which comes with the package dmsetup. Where udev runs without that
rule, as in a container that is shown the one of the machine, nobody would.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: There while udev runs; the libraries look for it too.
_CONTROL: Final = "/run/udev/control"
#: Where rules are, see udev(7): those of earlier directories take the place of later ones.
_DIRECTORIES: Final = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
#: What ends a wait, see dmsetup(8).
_ANSWER: Final = b"udevcomplete"


def is_running() -> bool:
    """Whether udev runs."""
    return os.path.exists(_CONTROL)


def answers() -> bool:
    """Whether it tells who makes a device of device-mapper that it has seen it."""
    rules: dict[str, Path] = {}
    for directory in map(Path, _DIRECTORIES):
        for path in directory.glob("*.rules"):
            rules.setdefault(path.name, path)
    return any(_ANSWER in _text(rules[name]) for name in sorted(rules, reverse=True))


def _text(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
