"""`homemgr man [PAGE]`: print a manual page in the form that man(1) reads.

`homemgr setup` puts all of them where man looks for them; before that, `homemgr man | man -l -`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.arguments import UsageError
from homemgr.cli.manual import PAGES

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()
_FIRST = "homemgr.1"


def run(arguments: Arguments) -> int:
    """Print it."""
    name = arguments.words[0] if arguments.words else _FIRST
    found = [page for file, page in PAGES.items() if name in (file, file.rpartition(".")[0])]
    if not found:
        raise UsageError(f"{name}: expected one of {', '.join(PAGES)}.")
    print(found[0](), end="")
    return 0
