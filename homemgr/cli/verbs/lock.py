"""`homemgr lock USER...`: take the keys of homes in use out of memory, until they are unlocked."""

from __future__ import annotations

from homemgr.cli.each import call_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Lock each home."""
    return call_each(arguments, "LockHome", "Cannot lock home {}")
