"""How large a home may be: what clients say for it, in bytes and in words. Pure.

The numbers are those of systemd-homed 262.
"""

from __future__ import annotations

from typing import Final

from homemgr.errors import BadHomeSize

#: Least and most of any home.
LEAST: Final = 5 << 20
MOST: Final = 5 << 40

#: Instead of a size: as small, and as large, as can be.
SMALLEST: Final = 0
LARGEST: Final = (1 << 64) - 2

_BLOCK: Final = 4096


def rounded(size: int) -> int:
    """``size`` as it is stored: whole blocks, not more than was asked for."""
    return size // _BLOCK * _BLOCK


def chosen(wanted: int, least: int, most: int, what: str) -> int:
    """The size to give a home that needs ``least`` and can have ``most``.

    Raises BadHomeSize, which tells both; ``what`` says what makes it need that much.
    """
    least, most = max(LEAST, -rounded(-least)), min(MOST, rounded(most))
    size = {SMALLEST: least, LARGEST: most}.get(wanted, rounded(wanted))
    if least > most or not least <= size <= most:
        raise BadHomeSize(
            f"The home area cannot have {size} bytes: expected {least} to {most}, as {what}."
        )
    return size
