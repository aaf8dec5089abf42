"""Blob files a client hands over with a record: copied, checked, named in the record's manifest.

The client decides what is behind its descriptors, also a file system of its own whose
reads never end. So they are read once, in threads that nothing else waits for.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import stat
from contextlib import ExitStack, asynccontextmanager, suppress
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon.store import MAX_BLOB_BYTES
from homemgr.files import Fd
from homemgr.record import names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from homemgr.record.model import UserRecord

#: How long reading all blobs of one call may take.
_COPY_S = 5.0
#: Threads that read at once; those that never come back stay among them.
_readers = BoundedSemaphore(8)

#: What was checked cannot become something else.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@asynccontextmanager
async def own_copies(blobs: Mapping[str, Fd]) -> AsyncIterator[dict[str, Fd]]:
    """What clients handed over, in memory that nobody changes, until the end of the block.

    Raises InvalidArgs for a name or descriptor that is not allowed, or one that cannot be
    read in time.
    """
    copies = await _copied(blobs) if blobs else {}
    try:
        yield copies
    finally:
        for copy in copies.values():
            copy.close()


async def _copied(blobs: Mapping[str, Fd]) -> dict[str, Fd]:
    """Let a thread read; it may be left behind, with descriptors that are its own."""
    if not _readers.acquire(blocking=False):
        raise errors.TooManyOperations("Too many clients hand over files that cannot be read.")
    reader = _Reader({name: blob.duplicate() for name, blob in blobs.items()})
    try:
        async with asyncio.timeout(_COPY_S):
            return await reader.result
    except TimeoutError as late:
        raise errors.InvalidArgs(
            f"blobs: {', '.join(sorted(blobs))} could not be read within {_COPY_S:g} seconds."
        ) from late


class _Reader:
    """A thread that copies files it owns and ends by itself; ``result`` is for the event loop."""

    def __init__(self, sources: dict[str, Fd]) -> None:
        self._sources = sources
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[dict[str, Fd]] = self._loop.create_future()
        # The end of the process does not wait for it.
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        copies: dict[str, Fd] | None = None
        failure: Exception | None = None
        try:
            copies = _copy_all(self._sources)
        except errors.HomeError as error:
            failure = error
        except OSError as error:
            failure = errors.InvalidArgs(f"blobs: they cannot be read: {error.strerror}.")
        finally:
            for source in self._sources.values():
                source.close()
            _readers.release()
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, copies, failure)

    def _tell(self, copies: dict[str, Fd] | None, failure: Exception | None) -> None:
        if self.result.done():
            # Too late: nobody takes them any more.
            for copy in (copies or {}).values():
                copy.close()
        elif failure is not None:
            self.result.set_exception(failure)
        else:
            self.result.set_result(copies or {})


def _copy_all(sources: Mapping[str, Fd]) -> dict[str, Fd]:
    left = MAX_BLOB_BYTES
    with ExitStack() as on_failure:
        copies: dict[str, Fd] = {}
        for name, source in sources.items():
            _check(name, source.fileno())
            copy = Fd(os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            on_failure.callback(copy.close)
            left -= _copy(name, source.fileno(), copy.fileno(), left)
            copies[name] = copy
        on_failure.pop_all()
        return copies


def _copy(name: str, source: int, target: int, limit: int) -> int:
    os.lseek(source, 0, os.SEEK_SET)
    content = files.read_limited(source, limit, name)
    files.write_all(target, content)
    fcntl.fcntl(target, fcntl.F_ADD_SEALS, _SEALS)
    return len(content)


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


def _check(name: str, fd: int) -> None:
    if not names.is_blob_name(name):
        raise errors.InvalidArgs(
            f"blobs: {name!r} is no blob name: expected letters, digits, -._~."
        )
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise errors.InvalidArgs(f"blobs: {name} is no regular file.")
    if status.st_size > MAX_BLOB_BYTES:
        raise errors.InvalidArgs(f"blobs: {name} has more than {MAX_BLOB_BYTES} bytes.")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise errors.InvalidArgs(f"blobs: {name} is not open for reading.")
