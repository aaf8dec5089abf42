"""Two machines with a wire between them, whose administrators reach each other by ssh.

Knows how to connect boxes; must not know what travels.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from .box import Box
from .users import User

#: Addresses of both ends; a network of documentation, RFC 5737.
ADDRESSES = ("192.0.2.1", "192.0.2.2")
KEY = "/root/.ssh/id_ed25519"


@contextmanager
def wired(one: Box, other: Box) -> Iterator[None]:
    """Connect two booted boxes; each knows the other under the name of its box."""
    ends = [f"wire{box.machine_id[:8]}" for box in (one, other)]
    command = ["ip", "link", "add", ends[0], "netns", str(one.pid1), "type", "veth"]
    subprocess.run([*command, "peer", "name", ends[1], "netns", str(other.pid1)], check=True)
    for box, peer, end, address, there in zip(
        (one, other), (other, one), ends, ADDRESSES, reversed(ADDRESSES), strict=True
    ):
        box.run(["ip", "address", "add", f"{address}/24", "dev", end])
        box.run(["ip", "link", "set", end, "up"])
        box.write("/etc/hosts", f"127.0.0.1 localhost\n{there} {peer.name}\n")
        box.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
        box.write(
            "/root/.ssh/config", "Host *\n  StrictHostKeyChecking no\n  LogLevel ERROR\n", 0o600
        )
    for box, peer in ((one, other), (other, one)):
        peer.write("/root/.ssh/authorized_keys", box.read(f"{KEY}.pub"), 0o600)
    yield


def pull_plug(box: Box) -> None:
    """Cut the wire at this end."""
    box.run(["ip", "link", "set", f"wire{box.machine_id[:8]}", "down"])


def plug_in(box: Box) -> None:
    """Connect it again."""
    box.run(["ip", "link", "set", f"wire{box.machine_id[:8]}", "up"])


def at(box: Box, user: User) -> User:
    """The same person on another machine."""
    return User(box, user.name, user.password)
