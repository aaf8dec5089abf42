"""Who is at the other end: the identity every room above decides with.

Knows user and process ids as the kernel or the bus vouches for them, nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from socket import SO_PEERCRED, SOL_SOCKET, socket

# struct ucred: pid, uid, gid.
_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """User and process at the other end; ``pid`` is 0 where nobody vouches for one."""

    uid: int
    pid: int


def of_socket(connected: socket) -> Peer:
    """Who connected to us, by the kernel's word at the time of connect(2); see unix(7)."""
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(SOL_SOCKET, SO_PEERCRED, _UCRED.size))
    return Peer(uid, pid)
