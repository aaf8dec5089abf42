"""A text as a QR code on a terminal, for a camera to read instead of a hand to copy."""

from __future__ import annotations

import os
import sys
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from homemgr import qrencode

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Modules of the margin that readers want around a code (ISO/IEC 18004).
_QUIET: Final = 4
#: White on black, whatever the colours of the terminal: what is a sign is white.
_COLOURS, _RESET = "\x1b[40;37;1m", "\x1b[0m"
#: By whether the upper and the lower of two modules are black.
_SIGNS: Final = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}


def show(text: str, what: str) -> None:
    """Show ``text`` on standard error, announced as ``what``, if that can show it."""
    if not _is_able():
        return
    code = qrencode.modules(text)
    if code is not None:
        print(f"\nTo scan the {what} off the screen:\n\n{drawn(code)}", file=sys.stderr)


def _is_able() -> bool:
    stream = sys.stderr
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
    return stream.isatty() and not is_plain and stream.encoding.lower() == "utf-8"


def drawn(code: Sequence[Sequence[bool]]) -> str:
    """Two rows of modules in each line."""
    width = len(code) + 2 * _QUIET
    edge, side = [[False] * width] * _QUIET, [False] * _QUIET
    rows = [*edge, *([*side, *row, *side] for row in code), *edge]
    lines = zip_longest(rows[::2], rows[1::2], fillvalue=[False] * width)
    return "".join(
        f"{_COLOURS}{''.join(_SIGNS[pair] for pair in zip(*line, strict=True))}{_RESET}\n"
        for line in lines
    )
