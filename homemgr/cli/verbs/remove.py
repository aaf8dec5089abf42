"""`homemgr remove USER...`: delete homes with their files and records."""

from __future__ import annotations

from homemgr.cli.each import call_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Remove each home."""
    return call_each(arguments, "RemoveHome", "Cannot remove home {}")
