"""Runs jobs: one worker process and one socket for each.

The job server (``work.server``) forks the workers; it was started before the
event loop and has everything loaded. This side sends requests, hands out
processor time and waits for results. It knows no verb.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from homemgr import errors, job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

#: Jobs at once over all homes; further ones wait. Each is a process.
MAX_JOBS = 128


class JobRunner:
    """Owner of the control socket to the job server and of every running job's socket."""

    def __init__(self, control: socket.socket, processors: int | None = None) -> None:
        """Take over ``control``; ``processors`` is how many workers may hash at once."""
        self._control = control
        self._processors = asyncio.Semaphore(processors or os.cpu_count() or 1)
        self._jobs = asyncio.Semaphore(MAX_JOBS)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(
        self, verb: str, arguments: Mapping[str, object], fds: Sequence[int] = ()
    ) -> dict[str, object]:
        """Run one job to its end and return its result.

        Raises the HomeError the worker raised, or HomeError if the worker died.
        """
        request = job.pack(job.Request(verb, arguments).message())
        self._running += 1
        self._idle.clear()
        try:
            async with self._jobs:
                return await self._run(verb, request, fds)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no job runs."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the job server end; running workers finish on their own."""
        self._control.close()

    async def _run(self, verb: str, request: bytes, fds: Sequence[int]) -> dict[str, object]:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)  # noqa: FBT003 -- its only form
            # A datagram of one byte; the job server always drains its queue.
            socket.send_fds(self._control, [b"j"], [theirs.fileno()])
        with ours:
            conversation = _Conversation(ours, self._processors)
            try:
                return await conversation.hold(request, fds)
            except (EOFError, ConnectionError) as error:
                log.error("The worker for %s died before it answered.", verb)
                raise errors.HomeError(
                    f"The worker process that should {verb} died unexpectedly; the log has more."
                ) from error


class _Conversation:
    """One job's talk with its worker; gives the processor back whatever happens."""

    def __init__(self, sock: socket.socket, processors: asyncio.Semaphore) -> None:
        self._sock = sock
        self._processors = processors
        self._holds_processor = False
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()

    async def hold(self, request: bytes, fds: Sequence[int]) -> dict[str, object]:
        try:
            # Descriptors ride on the first byte of a fresh, empty socket: never blocks.
            head = socket.send_fds(self._sock, [request[:1]], list(fds)) if fds else 0
            await self._loop.sock_sendall(self._sock, request[head:])
            while True:
                message = await self._receive()
                if "result" in message:
                    result = message["result"]
                    assert isinstance(result, dict)
                    return result
                if "error" in message:
                    raise job.revive(message["error"])
                await self._serve(message)
        finally:
            self._free()

    async def _serve(self, message: job.Message) -> None:
        """Answer a question for processor time."""
        if message.get("need") == "processor":
            await self._processors.acquire()
            self._holds_processor = True
            await self._loop.sock_sendall(self._sock, job.pack({"granted": "processor"}))
        elif message.get("free") == "processor":
            self._free()
        else:
            raise job.ProtocolError(f"unexpected message with keys {sorted(message)}")

    def _free(self) -> None:
        if self._holds_processor:
            self._holds_processor = False
            self._processors.release()

    async def _receive(self) -> job.Message:
        await self._fill(job.HEADER.size)
        end = job.HEADER.size + job.body_length(bytes(self._received[: job.HEADER.size]))
        await self._fill(end)
        body = bytes(self._received[job.HEADER.size : end])
        del self._received[:end]
        return job.unpack(body)

    async def _fill(self, count: int) -> None:
        while len(self._received) < count:
            chunk = await self._loop.sock_recv(self._sock, 65536)
            if not chunk:
                raise EOFError
            self._received += chunk
