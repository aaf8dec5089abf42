"""`homemgr setup`: put units and policy in place, on this machine or in an image.

Only reads the command line; what is done where is in the package `homemgr.cli.setup`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from homemgr.cli.arguments import Option, UsageError
from homemgr.cli.setup.act import setup
from homemgr.cli.setup.tree import Tree
from homemgr.errors import AccessDenied

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = (
    Option("root", "", "DIR", "Work on the image whose root directory is DIR"),
    Option("programs", "", "DIR", "Where homemgr and homemgrd are, as seen from inside the image"),
)


def run(arguments: Arguments) -> int:
    """Set up, saying each step."""
    programs = arguments.value("programs") or own_directory()
    if not os.path.isabs(programs):
        raise UsageError(f"--programs={programs}: expected an absolute path.")
    setup(tree_of(arguments), programs.rstrip("/"), print)
    return 0


def tree_of(arguments: Arguments) -> Tree:
    """The tree to work on; the running system's belongs to root."""
    tree = Tree(os.path.realpath(arguments.value("root", "/")))
    if tree.is_running_system and os.geteuid() != 0:
        raise AccessDenied("Only root may change units and policy of this machine.")
    return tree


def own_directory() -> str:
    """Where the programs of this installation are."""
    # In a virtual environment the interpreter lies beside them, behind a link that must stay.
    beside = os.path.dirname(os.path.abspath(sys.executable))
    if os.path.exists(os.path.join(beside, "homemgrd")):
        return beside
    return os.path.dirname(os.path.abspath(sys.argv[0]))
