"""What changed between two snapshots of a home, asked of btrfs instead of found by a walk.

Btrfs knows it from its own trees, in a millisecond where a walk through 60,000 names takes a
second. It is asked with its native send, but only for the names: what changed is then read
from the snapshot and told in frames like all else. The stream itself does not travel, for
what it would bring arrives either way, and this it would cost:

- It is commands of another machine, to be carried out by root below paths that they name.
- It has what must not arrive (set-id bits, device nodes, attributes of all classes), so that
  both ends had to take it apart and put it together again to sanitise it.
- In an increment it sends a hole as zeros, and the digests of both sides differ.
- It would serve only from btrfs to btrfs; this serves whatever the other side stores on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.kernel import btrfs
from homemgr.storage import reader
from homemgr.transfer.btrfs_stream import ChangedNames
from homemgr.transfer.entry import Kind
from homemgr.work.stream import start_thread

if TYPE_CHECKING:
    from homemgr.storage.ledger import Ledger
    from homemgr.transfer.selection import Selection

_READ_BYTES = 64 << 10


def changed_names(base: Fd, snapshot: Fd) -> Selection:
    """What is to be looked at in ``snapshot`` by who knows all of ``base``.

    OSError if btrfs cannot tell, StreamError if we cannot make use of it.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    into = Fd(writing)
    failed: list[OSError] = []

    def send() -> None:
        with into:
            try:
                btrfs.send_changes(base.fileno(), snapshot.fileno(), into.fileno())
            except OSError as error:
                failed.append(error)

    names = ChangedNames()
    thread = start_thread(send)
    try:
        # Closed before we wait: a sender whose stream nobody wants any more ends too.
        with Fd(reading) as out:
            while data := os.read(out.fileno(), _READ_BYTES):
                names.feed(data)
    finally:
        thread.join()
    if failed:
        raise failed[0]
    return names.finish()


def has_links(snapshot: Fd, only: Selection, ledger: Ledger, leave_out: frozenset[bytes]) -> bool:
    """Whether one of the selected files has, or had, other names, which may not be selected.

    The first name in the order of a walk tells of such a file, so that one that comes or goes
    concerns the others; only a walk through everything meets all of them.
    """
    for step in reader.walk(snapshot, leave_out=leave_out, only=only):
        if step.what != reader.ENTRY:
            continue
        known = ledger.known(step.path)
        if step.stat.st_nlink > 1 or (known is not None and known.kind == Kind.LINK):
            return True
    return False
