"""How much this process logs, in the levels of syslog(3), and whether it logs at all.

For the two interfaces that tell and change it: org.freedesktop.LogControl1 and
io.systemd.service. Knows Python's logging; not where the log goes.
"""

from __future__ import annotations

import logging
from typing import Final

#: Names by their number in syslog(3), the most serious first.
NAMES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

# Python has fewer, and numbers that grow the other way; those between are nobody's.
_NUMBERS: Final = (
    logging.CRITICAL + 2,
    logging.CRITICAL + 1,
    logging.CRITICAL,
    logging.ERROR,
    logging.WARNING,
    logging.INFO + 5,
    logging.INFO,
    logging.DEBUG,
)
#: More serious than anything.
_SILENT: Final = logging.CRITICAL + 10


def level() -> int:
    """The least serious level that is logged, or would be."""
    present = logging.getLogger().getEffectiveLevel()
    return max((n for n, number in enumerate(_NUMBERS) if number >= present), default=0)


def set_level(level: int) -> None:
    """Log ``level``, an index of NAMES, and what is more serious."""
    logging.getLogger().setLevel(_NUMBERS[level])


def is_silent() -> bool:
    """Whether nothing is logged at all."""
    return logging.getLogger().manager.disable >= _SILENT


def set_silent(*, silent: bool) -> None:
    """Log nothing at all, or again what the level says."""
    logging.disable(_SILENT if silent else logging.NOTSET)


def threshold() -> int:
    """The least number, as in logging, that is logged now."""
    return _SILENT if is_silent() else logging.getLogger().getEffectiveLevel()
