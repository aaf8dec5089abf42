"""`homemgr unsetup`: put back everything that `homemgr setup` changed.

Only reads the command line; the work is in the package `homemgr.cli.setup`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.arguments import Option
from homemgr.cli.setup.act import unsetup
from homemgr.cli.verbs.setup import tree_of

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (Option("root", "", "DIR", "Work on the image whose root directory is DIR"),)


def run(arguments: Arguments) -> int:
    """Undo the setup, saying each step."""
    unsetup(tree_of(arguments), print)
    return 0
