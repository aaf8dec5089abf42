"""A worker as its own program, so that it can be killed at any system call."""

from __future__ import annotations

import socket
from importlib import import_module

from homemgr.work import worker

# What a worker would load for one verb only.
for name in ("check", "check_places", "export", "importing", "receive", "send"):
    import_module(f"homemgr.work.{name}")


def main(sock: socket.socket) -> None:
    """Do the job that comes over ``sock``."""
    with sock:
        worker.run(sock)
