"""A worker as its own program, so that strace can kill it at any system call of its choice."""

from __future__ import annotations

import socket
import sys

from homemgr.work import worker

if __name__ == "__main__":
    worker.run(socket.socket(fileno=int(sys.argv[1])))
