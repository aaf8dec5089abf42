"""Who asks for what the present task does: told once, where a call comes in."""

from __future__ import annotations

from contextvars import ContextVar

#: His uid; the service itself is root.
origin: ContextVar[int] = ContextVar("origin", default=0)
