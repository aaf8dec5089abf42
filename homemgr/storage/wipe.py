"""Keys that are no longer needed."""

from __future__ import annotations


def wipe(key: bytearray) -> None:
    """Overwrite ``key``, as far as Python has no other copy of it."""
    key[:] = bytes(len(key))
