"""`homemgr completion bash|zsh|fish`: print the script that completes command lines of homemgr.

`homemgr setup` puts them where the shells look for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.cli.arguments import UsageError
from homemgr.cli.completion import bash, fish, zsh

if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()
SCRIPTS = {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}


def run(arguments: Arguments) -> int:
    """Print it."""
    (shell,) = arguments.words
    if shell not in SCRIPTS:
        raise UsageError(f"{shell}: expected one of {', '.join(SCRIPTS)}.")
    print(SCRIPTS[shell](), end="")
    return 0
