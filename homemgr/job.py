"""What the daemon and a worker say to each other, and how it is framed.

A job is one worker process and one stream socket. The daemon sends a request
(JSON, descriptors beside it). The worker says that it has begun, before it does
anything: a job whose worker died before that may be given to another one. It may ask
for processor time, tell how far it is and ask questions, and ends with one result or
one failure. Meanwhile the daemon answers, and may say once that the job is called off.
Secrets travel here and nowhere else. This module knows neither side's inner life.

======================================  ==================================
worker                                  daemon
======================================  ==================================
``begun``: process id
``need``: processor, ``limit_s`` and    ``granted``: processor
``threads`` if that ends the worker
``free``: processor
``progress``: object
``ask``: question, ``about``: object    ``answer``: object, or ``error``
``result``: object, or ``error``        ``cancel``: true, at any time
======================================  ==================================

Frame: 4 bytes length, big endian, then that many bytes of JSON. Descriptors
ride on the first byte of the request's frame.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A record is at most 1 MiB, a request holds two of them and the keys.
MAX_FRAME_BYTES = 8 << 20
#: One descriptor for each blob; the kernel takes at most 253 in one message.
MAX_FDS = 128

HEADER = struct.Struct(">I")

#: What the daemon asks its job server for, one byte: to give a job, whose socket is beside it,
#: to a worker; and to forget the mounts it keeps, as no home uses an extension any more.
JOB, FORGET_MOUNTS = b"j", b"f"

#: A worker's question: keep the damaged record ``text`` (base64) before it is replaced.
KEEP_DAMAGED = "keep-damaged"

#: An argument of every job: the least level that its worker logs, a number as in logging.
LOG_LEVEL = "log_level"

Message = dict[str, object]


class ProtocolError(Exception):
    """The other side sent what it never should; a bug, not an answer."""


@dataclass(frozen=True)
class Request:
    """One job: the verb, its JSON arguments, and descriptors the arguments refer to by index."""

    verb: str
    arguments: Mapping[str, object]
    fds: tuple[int, ...] = ()

    def message(self) -> Message:
        """The JSON that is framed."""
        return {"verb": self.verb, "arguments": dict(self.arguments)}


def pack(message: Message) -> bytes:
    """Frame one message."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    # Names of files may have any bytes; json.loads takes them so as well.
    body = text.encode("utf-8", "surrogatepass")
    if len(body) > MAX_FRAME_BYTES:
        raise errors.InvalidArgs(
            f"The request is too large: {len(body)} bytes, at most {MAX_FRAME_BYTES} are taken."
        )
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Length of the body that follows ``header``; raises ProtocolError beyond the limit."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes")
    return int(length)


def unpack(body: bytes) -> Message:
    """The message in a frame's body."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ProtocolError("frame is no JSON object")
    return message


def failure(error: errors.HomeError) -> Message:
    """The message that carries a failure from the worker to the daemon."""
    told: Message = {"class": type(error).__name__, "message": errors.with_notes(error)}
    if isinstance(error, errors.SystemFailure):
        told["errno"] = error.number
    if isinstance(error, errors.BadSignature):
        told["public_key"] = error.public_key
    return {"error": told}


def revive(told: object) -> errors.HomeError:
    """The failure in ``told``, as the worker raised it."""
    if not isinstance(told, dict):
        raise ProtocolError("failure is no JSON object")
    cls = errors.BY_CLASS.get(str(told.get("class")), errors.HomeError)
    text = str(told.get("message", ""))
    if cls is errors.SystemFailure:
        failed = errors.SystemFailure(OSError(int(told.get("errno", 0)), ""), "")
        failed.args = (text,)
        return failed
    error = cls(text)
    if isinstance(error, errors.BadSignature):
        error.public_key = str(told.get("public_key", ""))
    return error


class Channel:
    """The worker's end of a job's socket. Blocking; owned by the worker until it exits."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over ``sock``."""
        self._sock = sock

    def receive(self) -> tuple[Request, list[Fd]]:
        """The request and the descriptors that came with it.

        Raises EOFError if the daemon is gone.
        """
        header, raw_fds, _, _ = socket.recv_fds(self._sock, HEADER.size, MAX_FDS)
        fds = [Fd(fd) for fd in raw_fds]
        header += self._exactly(HEADER.size - len(header)) if len(header) < HEADER.size else b""
        message = unpack(self._exactly(body_length(header)))
        arguments = message.get("arguments")
        if not isinstance(arguments, dict):
            raise ProtocolError("request without arguments")
        return Request(str(message.get("verb")), arguments), fds

    def begin(self) -> None:
        """Say that from here on the job may have changed something."""
        self.send({"begun": os.getpid()})

    def send(self, message: Message) -> None:
        """Send one message to the daemon."""
        self._sock.sendall(pack(message))

    def fileno(self) -> int:
        """For poll(2): readable when the job is called off or the daemon is gone."""
        return self._sock.fileno()

    def progress(self, told: Message) -> None:
        """Tell how far the job is; what ``told`` holds is between the verb and its caller."""
        self.send({"progress": told})

    def ask(self, question: str, about: Message) -> Message:
        """Ask the daemon and wait for its answer, however long it takes.

        Raises the HomeError the daemon answers with, Cancelled, and EOFError if it is gone.
        """
        self.send({"ask": question, "about": about})
        reply = self._reply()
        if "error" in reply:
            raise revive(reply["error"])
        answer = reply.get("answer")
        if not isinstance(answer, dict):
            raise ProtocolError(f"no answer to {question}")
        return answer

    def require_wanted(self) -> None:
        """Raise Cancelled if the job was called off, EOFError if the daemon is gone.

        For jobs that take long: only they need to ask, and only between two steps.
        """
        readable, _, _ = select.select([self._sock], [], [], 0)
        if readable:
            raise ProtocolError(f"unexpected message with keys {sorted(self._reply())}")

    @contextmanager
    def processor(self, limit_s: float | None = None, threads: int = 1) -> Iterator[None]:
        """Hold one of the machine's processors for expensive arithmetic.

        The daemon hands out as many as the machine has, so that a storm of
        logins neither thrashes nor allocates a hashing arena for each caller.
        Told of a limit on the time of so many threads, it knows what this process died of.
        """
        limit = {} if limit_s is None else {"limit_s": limit_s, "threads": threads}
        self.send({"need": "processor", **limit})
        if "granted" not in self._reply():
            raise ProtocolError("the processor was not granted")
        try:
            yield
        finally:
            self.send({"free": "processor"})

    def _reply(self) -> Message:
        """The next message from the daemon; Cancelled if that calls the job off."""
        message = unpack(self._frame())
        if "cancel" in message:
            raise errors.Cancelled
        return message

    def _frame(self) -> bytes:
        return self._exactly(body_length(self._exactly(HEADER.size)))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._sock.recv(count - len(data))
            if not chunk:
                raise EOFError("the daemon is gone")
            data += chunk
        return bytes(data)
