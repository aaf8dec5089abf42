"""The agent that lets polkit ask for a password on this terminal. See pkttyagent(1).

Started before calls that may need an administrator; it ends when we do.
"""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = "/usr/bin/pkttyagent"


def start() -> None:
    """Start the agent and wait until polkit knows it; do nothing where there is no terminal."""
    if not (os.path.exists(_PROGRAM) and sys.stdin.isatty() and sys.stdout.isatty()):
        return
    ready, notify = os.pipe()
    # --fallback: a desktop's own agent is preferred. It watches the process named.
    subprocess.Popen(
        [_PROGRAM, "--notify-fd", str(notify), "--fallback", "--process", str(os.getpid())],
        pass_fds=(notify,),
        stdin=subprocess.DEVNULL,
    )
    os.close(notify)
    # Closed by the agent once it is registered, or by its end.
    os.read(ready, 1)
    os.close(ready)
