"""Starting the service over an image, and a line to it instead of a bus.

Two forks: the first leaves the namespaces, the second is the first process in the new ones
and enters the image; with it everything ends that was started there. They alone import the
service, where they begin: the command line would load all of it to speak over a socket.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
from contextlib import suppress

from homemgr import errors, job
from homemgr.files import Fd

_READY = b"{}\n"


def open_line(path: str) -> socket.socket:
    """Have the image below ``path`` served; gives the line, whose closing ends it.

    Raises AccessDenied, NotSupported, FileNotFound, and what the service says at its start.
    """
    if os.geteuid() != 0:
        raise errors.AccessDenied("Only root may work on an image.")
    try:
        root = Fd.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise errors.FileNotFound(f"--root={path}: {error.strerror}.") from error
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with root:
        child = os.fork()
        if not child:
            ours.close()
            _be_the_service(root, theirs)
    theirs.close()
    atexit.register(_finish, ours, child)
    _require_ready(ours)
    return ours


def _finish(line: socket.socket, child: int) -> None:
    """Wait until everything is written: who works on an image may unmount it next."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
    os.waitpid(child, 0)


def _require_ready(line: socket.socket) -> None:
    told = bytearray()
    # Byte by byte: what follows are messages for somebody else.
    while not told.endswith(b"\n"):
        byte = line.recv(1)
        if not byte:
            raise errors.HomeError("The service over the image ended before it was ready.")
        told += byte
    if told != _READY:
        raise job.revive(job.unpack(bytes(told)).get("error"))


def _be_the_service(root: Fd, line: socket.socket) -> None:
    """The life of the first child; never returns."""
    code = 1
    # ^C is for the command line; what was begun is finished when it closes the line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from homemgr.offline import enter

        enter.load_everything()
        with root:
            enter.leave_namespaces(root)
        child = os.fork()
        if child:
            line.close()
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        else:
            _serve(line)
            code = 0
    except Exception:  # noqa: BLE001 -- a bug: what the command line says of its own
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _serve(line: socket.socket) -> None:
    import asyncio

    from homemgr.offline import enter, service
    from homemgr.work import server

    try:
        enter.enter()
        control = server.start()
        asyncio.run(service.serve(control, line, lambda: line.sendall(_READY)))
    except errors.HomeError as error:
        line.sendall(job.pack(job.failure(error))[job.HEADER.size :] + b"\n")
