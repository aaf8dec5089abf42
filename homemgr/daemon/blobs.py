"""Blob files a client hands over with a record: copied, checked, named in the record's manifest.

The client decides what is behind its descriptors, also a file system of its own whose
reads never end, not even by SIGKILL. So a worker reads them, never this process; who lets
workers hang has none left, and everybody else has.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon.store import MAX_BLOB_BYTES
from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from homemgr.daemon.jobs import JobRunner
    from homemgr.record.model import UserRecord

#: How long reading all blobs of one call may take.
COPY_S = 5.0
#: Calls that may hand over files at once, of one user and of all: each has a process for
#: as long as that reads, and up to MAX_BLOB_BYTES in memory until the call is answered.
MAX_OF_ONE, MAX_OF_ALL = 2, 32
#: A job takes two descriptors for each file.
_MAX_FILES = 60


class Uploads:
    """Takes over files for all clients of one daemon."""

    def __init__(self, runner: JobRunner) -> None:
        """Have workers of ``runner`` read."""
        self._runner = runner
        self._of: Counter[int] = Counter()

    @asynccontextmanager
    async def own_copies(self, uid: int, blobs: Mapping[str, Fd]) -> AsyncIterator[dict[str, Fd]]:
        """What ``uid`` hands over, in memory that nobody changes, until the end of the block.

        Raises InvalidArgs for a name or descriptor that is not allowed, or one that cannot
        be read in time; TooManyOperations.
        """
        if not blobs:
            yield {}
            return
        if len(blobs) > _MAX_FILES:
            raise errors.InvalidArgs(f"blobs: expected at most {_MAX_FILES}, found {len(blobs)}.")
        self._enter(uid)
        reading: asyncio.Task[None] | None = None
        try:
            with ExitStack() as stack:
                copies = {name: stack.enter_context(_sealable()) for name in blobs}
                reading = asyncio.create_task(self._read(blobs, copies))
                # Only the wait ends: what hangs in a read cannot be, and counts until it is over.
                await asyncio.wait({reading}, timeout=COPY_S)
                if not reading.done():
                    raise errors.InvalidArgs(
                        f"blobs: {', '.join(sorted(blobs))} could not be read"
                        f" within {COPY_S:g} seconds."
                    )
                reading.result()
                yield copies
        finally:
            if reading is None or reading.done():
                self._of[uid] -= 1
            else:
                reading.add_done_callback(lambda late: self._leave(uid, late))

    def _enter(self, uid: int) -> None:
        # Root hands over files for everybody.
        if (uid != 0 and self._of[uid] >= MAX_OF_ONE) or self._of.total() >= MAX_OF_ALL:
            raise errors.TooManyOperations(
                "Too many files are being handed over; if they could not be read, wait a while."
            )
        self._of[uid] += 1

    def _leave(self, uid: int, late: asyncio.Task[None]) -> None:
        """A worker has ended that nobody waits for any more, however it did."""
        self._of[uid] -= 1
        if not late.cancelled():
            # Asked for, or asyncio would report that nobody has heard of it.
            late.exception()

    def _read(
        self, blobs: Mapping[str, Fd], copies: Mapping[str, Fd]
    ) -> Coroutine[None, None, None]:
        """Let a worker read; what it needs stays open until it is done, whoever gave up."""
        names = sorted(blobs)
        with ExitStack() as on_failure:
            owned = [
                on_failure.enter_context(of[name].duplicate())
                for of in (blobs, copies)
                for name in names
            ]
            on_failure.pop_all()
        return self._run(names, owned)

    async def _run(self, names: Sequence[str], owned: Sequence[Fd]) -> None:
        with ExitStack() as stack:
            numbers = [stack.enter_context(fd).fileno() for fd in owned]
            arguments = {"names": names, "limit": MAX_BLOB_BYTES, "seconds": COPY_S + 1}
            await self._runner.run("copy", arguments, numbers, about="blobs of a client")


def _sealable() -> Fd:
    return Fd(os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def with_manifest(record: UserRecord, blobs: Mapping[str, Fd]) -> UserRecord:
    """The record with a manifest of exactly these copies; one it brings along must name them.

    Blocks for as long as their digests take.
    """
    digests = {name: _digest(blob.fileno()) for name, blob in blobs.items()}
    given = record.data.get("blobManifest")
    if given is None:
        return record.replaced(blobManifest=dict(digests)) if digests else record
    if not isinstance(given, dict) or given != digests:
        raise errors.InvalidRecord(
            f".blobManifest: expected the digests of the given blobs, {sorted(blobs)}."
        )
    return record


def _digest(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    return hashlib.sha256(files.read_limited(fd, MAX_BLOB_BYTES, "a blob")).hexdigest()
