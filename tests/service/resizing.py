"""What is tried with homes in images, encrypted or not, when they get another size."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from homemgr.kernel.identity import filesystem_identity
from tests.service.people import PASSWORD, secret
from tests.service.sizes import MIB, figures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.service.site import Service

#: Small and large (MiB), by file system.
SIZES = {"ext4": (48, 72), "xfs": (336, 352), "btrfs": (320, 352)}
#: From one size to the next of what only grows: much more than the tables that it takes.
_STEP = 4 * MIB
#: Why those do not shrink while they are in use that cannot.
REASONS = {"ext4": "deactivate the home first", "xfs": "xfs only grows"}


def resize(service: Service, name: str, size: int) -> None:
    service.call("ResizeHome", "sts", name, size, secret(PASSWORD))


def write(service: Service, name: str, file: str, size: int) -> bytes:
    """Have the user make a file; its digest."""
    home = service.path_of(name)
    uid, content = home.stat().st_uid, os.urandom(size)
    with filesystem_identity(uid, uid):
        (home / file).write_bytes(content)
    return hashlib.sha256(content).digest()


def holds(service: Service, name: str, file: str, digest: bytes) -> bool:
    return hashlib.sha256((service.path_of(name) / file).read_bytes()).digest() == digest


def room_in(service: Service, name: str) -> int:
    """Bytes of the file system of an active home."""
    disk = os.statvfs(service.path_of(name))
    return disk.f_blocks * disk.f_frsize


def check_sizes(running: Service, image: Path, kind: str) -> None:
    """Grow the home of anna under its user, and shrink it as far as its file system can."""
    small, large = (size * MIB for size in SIZES[kind])
    running.activate("anna")
    digest = write(running, "anna", "kept", 5 * MIB)
    before = room_in(running, "anna")
    home = running.path_of("anna")
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid):
        file = (home / "open").open("w")
    with file:
        file.write("before ")
        resize(running, "anna", large)
        file.write("after")
    assert (home / "open").read_text() == "before after"
    assert image.stat().st_size == large
    assert room_in(running, "anna") - before > (large - small) * 3 // 4
    seen = figures(running, "anna")
    assert (seen["diskSize"], seen["fileSystemType"]) == (large, kind)
    assert running.user_record("anna")["perMachine"][-1]["diskSize"] == large
    if kind != "btrfs":
        refused = running.failure("ResizeHome", "sts", "anna", small, secret(PASSWORD))
        assert refused.name.endswith(".BadHomeSize")
        assert REASONS[kind] in refused.message
        running.deactivate("anna")
    # Less than what is in it never; of xfs nothing at all.
    refused = running.failure("ResizeHome", "sts", "anna", 20 * MIB, secret(PASSWORD))
    assert refused.name.endswith(".BadHomeSize")
    assert kind != "xfs" or REASONS[kind] in refused.message
    for size in (1 << 60, (5 << 40) + 4096):
        refused = running.failure("ResizeHome", "sts", "anna", size, secret(PASSWORD))
        assert refused.name.endswith(".BadHomeSize")
    assert image.stat().st_size == large
    if kind != "xfs":
        resize(running, "anna", small)
        assert image.stat().st_size == small
    if kind == "btrfs":
        running.deactivate("anna")
    running.activate("anna")
    assert holds(running, "anna", "kept", digest)
    assert (running.path_of("anna") / "open").read_text() == "before after"
    running.deactivate("anna")


def check_kills(
    running: Service,
    image: Path,
    kind: str,
    until_gone: Callable[[], None],
    *,
    is_active: bool,
) -> None:
    """Kill the service while the home of anna, in use or not, gets other sizes."""
    sizes = [size * MIB for size in SIZES[kind]]
    running.activate("anna")
    digest = write(running, "anna", "kept", 5 * MIB)
    before, room = image.stat().st_size, room_in(running, "anna")
    running.deactivate("anna")
    grows_only = kind == "xfs" or (kind == "ext4" and is_active)
    for number, delay_s in enumerate((0.05, 0.2, 0.35, 0.7)):
        goal = sizes[1] + number * _STEP if grows_only else sizes[number % 2 == 0]
        if is_active:
            running.activate("anna")
        changing = running.begin("ResizeHome", "sts", "anna", goal, secret(PASSWORD))
        time.sleep(delay_s)
        running.kill()
        changing.failure()
        running.start()
        if is_active:
            assert holds(running, "anna", "kept", digest)
            running.deactivate("anna")
        until_gone()
        running.activate("anna")
        assert holds(running, "anna", "kept", digest)
        running.deactivate("anna")
        # The same once more goes on where it was.
        resize(running, "anna", goal)
        assert image.stat().st_size == goal
        running.activate("anna")
        # All of it came to the file system, which has its own tables too.
        gained, room = room_in(running, "anna") - room, room_in(running, "anna")
        assert abs(gained - (goal - before)) <= abs(goal - before) // 4
        before = goal
        assert holds(running, "anna", "kept", digest)
        running.deactivate("anna")
    assert [name for name in os.listdir(running.site.base) if name.startswith(".#")] == []
