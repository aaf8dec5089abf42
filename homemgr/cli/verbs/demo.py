"""`homemgr demo`: the whole life of a home on a private bus; nothing is left behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.cli.demo import inside, outside

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()


def run(arguments: Arguments) -> int:
    """Show it; called again inside its own namespaces it does the showing."""
    # The variable alone could come from anywhere; the first process is nobody by accident.
    is_inside = outside.INSIDE in os.environ and os.getpid() == 1
    return inside.run() if is_inside else outside.run()
