"""What may be logged of an unexpected exception: types and places, no text of its own.

The text of such an exception may quote an argument, and an argument may be a secret.
"""

from __future__ import annotations

import traceback


def outline(error: BaseException | None) -> str:
    """The chain of ``error`` as types and stack frames."""
    parts = []
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        parts.append(f"{type(error).__name__}\n{frames}")
        error = error.__cause__ or error.__context__
    return "\ncaused by ".join(parts)
